"""What an application does with pymemcache. Usage: python_pymemcache.py HOST PORT"""

import sys

from pymemcache.client.base import Client, PooledClient
from pymemcache.exceptions import MemcacheClientError, MemcacheServerError


def check(what, got, wanted):
    if got != wanted:
        sys.exit(f"{what}: got {got!r}, wanted {wanted!r}")


def storing(client):
    check("set", client.set("a", b"x"), True)
    check("set without reply", client.set("b", b"y", noreply=True), True)
    check("get", client.get("a"), b"x")
    check("get_many", client.get_many(["a", "b", "absent"]), {"a": b"x", "b": b"y"})
    check("set_many", client.set_many({f"m{n}": b"%d" % n for n in range(200)}), [])
    check("get_many of 200", len(client.get_many([f"m{n}" for n in range(200)])), 200)
    check("add of a known key", client.add("a", b"z", noreply=False), False)
    check("replace of a new key", client.replace("absent", b"z", noreply=False), False)
    check("append", client.append("a", b"2", noreply=False), True)
    check("prepend", client.prepend("a", b"0", noreply=False), True)
    check("get after joining", client.get("a"), b"0x2")


def comparing(client):
    client.set("compared", b"1", noreply=False)
    value, cas = client.gets("compared")
    check("gets", value, b"1")
    check("cas", client.cas("compared", b"2", cas), True)
    check("cas with an old number", client.cas("compared", b"3", cas), False)
    check("cas of nothing", client.cas("absent", b"3", cas), None)
    check("gets_many", [item[0] for item in client.gets_many(["compared"]).values()], [b"2"])


def counting(client):
    client.set("count", b"18446744073709551615", noreply=False)
    check("incr over the end", client.incr("count", 2), 1)
    check("decr below zero", client.decr("count", 7), 0)
    check("incr of nothing", client.incr("absent", 1), None)


def ending(client):
    client.set("a", b"x", noreply=False)
    check("touch", client.touch("a", expire=1000, noreply=False), True)
    check("touch to the past", client.touch("a", expire=-1, noreply=False), True)
    check("get after its end", client.get("a"), None)
    check("touch of nothing", client.touch("a", noreply=False), False)
    client.set("a", b"x", noreply=False)
    check("delete", client.delete("a", noreply=False), True)
    check("delete of nothing", client.delete("a", noreply=False), False)
    client.set("a", b"x", noreply=False)
    check("flush_all", client.flush_all(noreply=False), True)
    check("get after flush_all", client.get("a"), None)


def refusing(client):
    try:
        client.set("large", b"x" * (2 << 20), noreply=False)
        sys.exit("a value of 2 MiB was stored")
    except MemcacheServerError:
        pass
    try:
        client.incr("text", 1) if client.set("text", b"x", noreply=False) else None
        sys.exit("a text was counted up")
    except MemcacheClientError:
        pass


def main():
    address = (sys.argv[1], int(sys.argv[2]))
    for kind in (Client, PooledClient):
        client = kind(address, connect_timeout=60, timeout=60)
        client.flush_all(noreply=False)
        for part in (storing, comparing, counting, ending, refusing):
            part(client)
        check("version", len(client.version()) > 0, True)
        client.quit()
    print("passed")


main()
