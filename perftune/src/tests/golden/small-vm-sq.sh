#!/bin/sh
# What `larder tune --apply` does on this machine (mode sq: requests on CPUs 1,
# interrupts on CPUs 0). This script keeps no old values; --apply does.
set -eu

# --- interrupts ---
# virtio1-input.0: network interrupts stay away from the CPUs that serve requests
printf '%s\n' 0 > /ROOT/proc/irq/25/smp_affinity_list
# virtio1-output.0: network interrupts stay away from the CPUs that serve requests
printf '%s\n' 0 > /ROOT/proc/irq/26/smp_affinity_list
# virtio1-config: network interrupts stay away from the CPUs that serve requests
printf '%s\n' 0 > /ROOT/proc/irq/24/smp_affinity_list
# virtio2-config: the few interrupts that are not of a queue join those of the network
printf '%s\n' 0 > /ROOT/proc/irq/27/smp_affinity_list

# --- network ---
# packets are handled by the CPUs that serve requests (RPS)
printf '%s\n' 2 > /ROOT/sys/class/net/eth0/queues/rx-0/rps_cpus
# this queue's part of the flows that are remembered (RFS)
printf '%s\n' 32768 > /ROOT/sys/class/net/eth0/queues/rx-0/rps_flow_cnt
# packets go to the CPU that reads their connection (RFS)
printf '%s\n' 32768 > /ROOT/proc/sys/net/core/rps_sock_flow_entries
# connections that are being made
printf '%s\n' 4096 > /ROOT/proc/sys/net/ipv4/tcp_max_syn_backlog
# packets that wait for a CPU after RPS
printf '%s\n' 4096 > /ROOT/proc/sys/net/core/netdev_max_backlog

# --- disks ---
# vda: the node orders its requests itself
printf '%s\n' '[none] mq-deadline kyber bfq' > /ROOT/sys/block/vda/queue/scheduler
# vda: looking for neighbouring requests to merge costs CPU
printf '%s\n' 2 > /ROOT/sys/block/vda/queue/nomerges

# --- system ---
# huge pages for memory that asks for them, as the value cache does
printf '%s\n' 'always [madvise] never' > /ROOT/sys/kernel/mm/transparent_hugepage/enabled
# the node's memory is bounded; swapped out, it would stall a whole core
printf '%s\n' 1 > /ROOT/proc/sys/vm/swappiness
# requests that fio and its like may have open
printf '%s\n' 1048576 > /ROOT/proc/sys/fs/aio-max-nr

# --- node ---
# `larder serve` learns from it which CPUs are its own
mkdir -p /ROOT/etc/larder
printf %s '# How the CPUs of this machine are divided. Written by `larder tune --apply`; `larder serve` runs its
# cores on `cpus`, and leaves `interrupts` to network cards and disks.
mode = "sq"
cpus = "1"
interrupts = "0"

[options]
mode = "sq"
dir = ["/mnt/data/larder"]
' > /ROOT/etc/larder/cpu-plan.toml.larder-new
mv /ROOT/etc/larder/cpu-plan.toml.larder-new /ROOT/etc/larder/cpu-plan.toml
