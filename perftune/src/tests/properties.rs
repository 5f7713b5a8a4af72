//! What holds for every machine.

use proptest::prelude::*;

use super::builder::TreeBuilder;
use super::faults::{Fault, FaultyFiles};
use super::machines::DATA;
use crate::apply::{apply, undo};
use crate::error::TuneError;
use crate::options::{TuneMode, TuneOptions};
use crate::plan::decide;

/// A machine, in numbers.
#[derive(Clone, Debug)]
struct Shape {
    nodes: usize,
    cores: usize,
    threads: usize,
    card: usize,
    card_queues: usize,
    disk: usize,
    disk_queues: usize,
    balancer: usize,
    governor: bool,
    systemd: bool,
}

impl Shape {
    fn builder(&self) -> TreeBuilder {
        let mut builder = TreeBuilder::new(self.nodes, self.cores, self.threads)
            .clock(["tsc", "xen", "hpet"][self.balancer % 3], "xen tsc hpet");
        if self.systemd {
            builder = builder.systemd();
        }
        if self.governor {
            builder = builder.governors("powersave");
        }
        let file =
            ["/etc/default/irqbalance", "/etc/sysconfig/irqbalance", "/etc/conf.d/irqbalance"];
        if let Some(path) = file.get(self.balancer) {
            builder = builder.with(path, "# Options\nOPTIONS='--banirq=25'");
        }
        let intel = (0..self.card_queues).map(|queue| format!("eth0-TxRx-{queue}"));
        builder = match self.card {
            0 => builder.ena(self.card_queues),
            1 => builder.virtio_card("eth0", self.card_queues),
            2 => builder.card("eth0", "ixgbevf", self.card_queues, &intel.collect::<Vec<_>>()),
            _ => builder,
        };
        let queues = self.disk_queues.min(self.nodes * self.cores * self.threads);
        match self.disk {
            0 => builder.nvme(0, queues).mount("/mnt/data", "259:0", "xfs", "/dev/nvme0n1"),
            1 => builder.virtio_disk("vda", "none [mq-deadline]").mount(
                "/mnt/data",
                "254:0",
                "ext4",
                "/dev/vda",
            ),
            _ => builder,
        }
    }
}

fn shapes(cores: usize) -> impl Strategy<Value = Shape> {
    let size = (1..=2_usize, 1..=cores, 1..=2_usize);
    let devices = (0..4_usize, 1..=6_usize, 0..3_usize, 1..=6_usize);
    (size, devices, 0..4_usize, any::<bool>(), any::<bool>()).prop_map(
        |(
            (nodes, cores, threads),
            (card, card_queues, disk, disk_queues),
            balancer,
            governor,
            systemd,
        )| {
            Shape {
                nodes,
                cores,
                threads,
                card,
                card_queues,
                disk,
                disk_queues,
                balancer,
                governor,
                systemd,
            }
        },
    )
}

fn modes() -> impl Strategy<Value = Option<TuneMode>> {
    prop::option::of(prop::sample::select(vec![
        TuneMode::Auto,
        TuneMode::Mq,
        TuneMode::Sq,
        TuneMode::SqSplit,
    ]))
}

fn options(mode: Option<TuneMode>) -> TuneOptions {
    TuneOptions { mode, dir: vec![DATA.to_owned()], ..TuneOptions::default() }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn every_cpu_serves_requests_or_interrupts(shape in shapes(24), mode in modes()) {
        let tree = TreeBuilder::new(shape.nodes, shape.cores, shape.threads).build();
        let machine = tree.machine();
        let plan = match decide(&machine, &options(mode)) {
            Ok(plan) => plan,
            Err(TuneError::NothingLeft { .. }) => {
                prop_assert!(machine.cores() == 1 || machine.cpus.len() == 1);
                return Ok(());
            }
            Err(error) => return Err(TestCaseError::fail(error.to_string())),
        };
        prop_assert!(!plan.compute.is_empty() && !plan.interrupts.is_empty());
        prop_assert_eq!(plan.compute.or(&plan.interrupts), machine.all_cpus());
        let common = plan.compute.and(&plan.interrupts);
        prop_assert!(common.is_empty() || plan.compute == plan.interrupts);
        prop_assert_eq!(plan.mode == TuneMode::Mq, !common.is_empty());
        prop_assert!(plan.mode != TuneMode::Auto);
        if mode.is_some_and(|mode| mode != TuneMode::Auto) {
            prop_assert_eq!(Some(plan.mode), mode);
        } else if machine.cores() > 16 {
            let cores = plan.interrupts.count() / shape.threads;
            prop_assert_eq!(cores % shape.nodes, 0, "the same number of each node");
            prop_assert!(cores * 16 >= machine.cores());
            prop_assert!((cores - shape.nodes) * 16 < machine.cores());
        }
    }

    #[test]
    fn a_plan_that_is_applied_leaves_nothing_to_do_and_can_be_undone(
        shape in shapes(4),
        mode in modes(),
        step in 0..120_usize,
    ) {
        let tree = shape.builder().build();
        let (files, before, machine) = (tree.files(), tree.snapshot(), tree.machine());
        let Ok(plan) = decide(&machine, &options(mode)) else { return Ok(()) };
        let cut = FaultyFiles::new(tree.files(), Fault::PowerCut(step));
        // A step beyond the last one cuts nothing.
        let is_whole = apply(&cut, &machine, &plan).is_ok();
        prop_assert_eq!(is_whole, cut.changes() <= step);
        undo(&files).expect("undone after the cut");
        prop_assert!(tree.snapshot() == before, "undone after the cut");
        apply(&files, &machine, &plan).expect("applied");
        let again = decide(&tree.machine(), &options(mode)).expect("a plan");
        let left: Vec<&str> = again.differences().map(|setting| setting.path.as_str()).collect();
        prop_assert_eq!(left, Vec::<&str>::new());
        let values = |plan: &crate::plan::TunePlan| -> Vec<(String, String)> {
            plan.settings.iter().map(|it| (it.path.clone(), it.value.clone())).collect()
        };
        prop_assert_eq!(values(&again), values(&plan), "the plan does not depend on its effect");
        undo(&files).expect("undone");
        prop_assert!(tree.snapshot() == before, "undone");
    }
}
