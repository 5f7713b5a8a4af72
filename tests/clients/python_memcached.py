"""What an application does with python-memcached. Usage: python_memcached.py HOST PORT"""

import sys

import memcache


def check(what, got, wanted):
    if got != wanted:
        sys.exit(f"{what}: got {got!r}, wanted {wanted!r}")


def storing(client):
    check("set", client.set("text", "grüße"), True)
    check("get", client.get("text"), "grüße")
    check("set of bytes", client.set("bytes", bytes(range(256)) * 64), True)
    check("get of bytes", client.get("bytes"), bytes(range(256)) * 64)
    check("set of an object", client.set("object", {"a": [1, 2.5, None]}), True)
    check("get of an object", client.get("object"), {"a": [1, 2.5, None]})
    check("set with compression", client.set("long", "x" * 100_000, min_compress_len=100), True)
    check("get with compression", client.get("long"), "x" * 100_000)
    check("get of nothing", client.get("nothing"), None)
    check("add of a known key", client.add("text", "other"), False)
    check("add of a new key", client.add("new", "other"), True)
    check("replace of a known key", client.replace("new", "third"), True)
    check("replace of a new key", client.replace("absent", "x"), False)
    check("get after replace", client.get("new"), "third")


def many(client):
    items = {f"many-{number}": f"value {number}" for number in range(500)}
    check("set_multi", client.set_multi(items), [])
    check("get_multi", client.get_multi(list(items) + ["absent"]), items)
    check("delete_multi", client.delete_multi(list(items)), 1)
    check("get_multi after delete_multi", client.get_multi(list(items)), {})


def comparing(client):
    client.set("compared", "1")
    check("gets", client.gets("compared"), "1")
    check("cas", client.cas("compared", "2"), True)
    check("gets again", client.gets("compared"), "2")
    client.set("compared", "3")
    check("cas of a changed item", client.cas("compared", "4"), False)
    check("get after cas", client.get("compared"), "3")


def counting(client):
    check("set of a number", client.set("count", 10), True)
    check("incr", client.incr("count"), 11)
    check("incr by 89", client.incr("count", 89), 100)
    check("decr", client.decr("count"), 99)
    check("decr by 1000", client.decr("count", 1000), 0)
    check("incr of nothing", client.incr("absent"), None)


def joining(client):
    check("set", client.set("joined", "b"), True)
    check("append", client.append("joined", "c"), True)
    check("prepend", client.prepend("joined", "a"), True)
    check("get", client.get("joined"), "abc")
    check("append to nothing", client.append("absent", "c"), False)


def ending(client):
    client.set("touched", "x", time=1000)
    check("touch", client.touch("touched", 2000), 1)
    check("touch to the past", client.touch("touched", -1), 1)
    check("get after its end", client.get("touched"), None)
    client.set("deleted", "x")
    check("delete", client.delete("deleted"), 1)
    check("get after delete", client.get("deleted"), None)
    check("delete with noreply", client.delete("deleted", noreply=True), 1)
    client.set("flushed", "x")
    client.flush_all()
    check("get after flush_all", client.get("flushed"), None)
    check("set after flush_all", client.set("flushed", "y"), True)
    check("get of what was set after flush_all", client.get("flushed"), "y")


def main():
    servers = [f"{sys.argv[1]}:{sys.argv[2]}"]
    # Without cache_cas, `cas` is a plain `set`.
    client = memcache.Client(servers, socket_timeout=60, cache_cas=True)
    client.flush_all()
    for part in (storing, many, comparing, counting, joining, ending):
        part(client)
    statistics = client.get_stats()
    check("servers with statistics", len(statistics), 1)
    check("pid in the statistics", "pid" in statistics[0][1], True)
    client.disconnect_all()
    print("passed")


main()
