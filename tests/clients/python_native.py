"""The native protocol from its document alone: PROTOCOL.md and schema/*.fbs, nothing else.

Usage: python_native.py HOST PORT

Checks the vectors in protocol/vectors both ways, then makes every kind of request of a node.
"""

import importlib
import json
import pathlib
import socket
import struct
import subprocess
import sys
import tempfile
import time

import flatbuffers

ROOT = pathlib.Path(__file__).resolve().parents[2]
REQUEST, REPLY, VERSION = 0xD1, 0xD2, 1
HEADER = struct.Struct("<BBBBIQII")
KEY = struct.Struct("<IHH")
OPCODES = {
    "ping": 0x01,
    "hello": 0x02,
    "statistics": 0x03,
    "get": 0x10,
    "put": 0x11,
    "delete": 0x12,
    "increment": 0x13,
    "touch": 0x14,
    "get_and_touch": 0x15,
    "multi_get": 0x16,
    "get_items": 0x20,
    "scan": 0x21,
    "mutate_record": 0x22,
    "delete_items": 0x23,
    "create_namespace": 0x30,
    "set_namespace": 0x31,
    "list_namespaces": 0x32,
    "drop_namespace": 0x33,
    "stage": 0x40,
    "put_chunk": 0x41,
    "commit": 0x42,
    "abort": 0x43,
    "get_chunk": 0x44,
    "begin_lease": 0x50,
    "end_lease": 0x51,
}
# Bit 3 of a request's flags.
TOKEN = 8
TOKEN_BYTES = 24
# Bits 1 and 2 of a request's flags.
DURABILITY = {"sync": 1 << 1, "none": 2 << 1}
# The requests whose bodies are FlatBuffers: their tables and identifiers.
FLAT = {
    "get_items": ("GetItems", "LRGI"),
    "scan": ("Scan", "LRSC"),
    "delete_items": ("DeleteItems", "LRDI"),
    "create_namespace": ("NamespaceChange", "LRNC"),
    "set_namespace": ("NamespaceChange", "LRNC"),
    "list_namespaces": ("NamespaceChange", "LRNC"),
    "drop_namespace": ("NamespaceChange", "LRNC"),
}
# The settings of a namespace.
SETTINGS = [
    "ttl_default",
    "ttl_max",
    "ttl_jitter_percent",
    "value_bytes_max",
    "page_items_max",
    "page_bytes_max",
    "durability",
    "cache",
    "compress_from",
    "bytes_max",
    "record_bytes_max",
]
# The kinds of changes, by their numbers.
CHANGES = [
    "set",
    "put_if_absent",
    "put_if_present",
    "put_if_version",
    "append",
    "prepend",
    "delete",
    "delete_if_version",
    "increment",
    "decrement",
    "increment_or_create",
    "decrement_or_create",
    "check_present",
    "put_if_value",
    "delete_if_value",
]
PUT_MODES = ["set", "if_absent", "if_present", "if_version", "append", "prepend", "if_value"]
OK, LARGE, ABSENT, EXISTS, VERSION_DIFFERS, NOT_A_NUMBER = 0x00, 0x01, 0x10, 0x20, 0x21, 0x22
VALUE_DIFFERS, CHANGED, MISSING_CHUNK, BUSY = 0x23, 0x24, 0x25, 0x40
MALFORMED, UNKNOWN_OPCODE, UNKNOWN_NAMESPACE, BAD_TOKEN = 0x30, 0x31, 0x36, 0x37
TOO_LARGE, NAMESPACE_EXISTS, TOKEN_REFUSED = 0x35, 0x38, 0x3B
LEASE_ENDED, IS_LARGE, NO_UPLOAD = 0x3E, 0x3F, 0x3D


def generated():
    """The readers and writers that flatc makes of the schemas, by the name of their table."""
    with tempfile.TemporaryDirectory() as folder:
        schemas = sorted((ROOT / "protocol" / "schema").glob("*.fbs"))
        subprocess.run(["flatc", "--python", "-o", folder, *map(str, schemas)], check=True)
        sys.path.insert(0, folder)
        names = ["HelloReply", "GetItems", "Scan", "Page", "PageItem", "DeleteItems"]
        names += ["NamespaceChange", "NamespaceSettings", "Namespaces", "Namespace"]
        names += ["Statistics", "Statistic"]
        modules = {name: importlib.import_module(f"larder.{name}") for name in names}
        sys.path.remove(folder)
    return modules


SCHEMA = generated()


def reader(name, body):
    """The root table of a body, whose identifier is looked at first."""
    table = getattr(SCHEMA[name], name)
    assert getattr(table, f"{name}BufferHasIdentifier")(body, 0), body
    return table.GetRootAs(body, 0)


def byte_strings(table, *names):
    """The vectors of bytes of a table that are there, in hexadecimal, by their names."""
    found = {}
    for name in names:
        method = name.title().replace("_", "")
        if not getattr(table, f"{method}IsNone")():
            length = getattr(table, f"{method}Length")()
            found[name] = bytes(getattr(table, method)(at) for at in range(length)).hex()
    return found


def read_settings(table):
    """The settings of a namespace that are there."""
    found = {name: getattr(table, name.title().replace("_", ""))() for name in SETTINGS}
    return {name: value for name, value in found.items() if value is not None}


def read_change(table):
    """The fields of the body of a request about namespaces."""
    fields = {}
    if table.Name() is not None:
        fields["name"] = table.Name().decode()
    if table.Settings() is not None:
        fields["settings"] = read_settings(table.Settings())
    return fields


def change_body(fields):
    """The body of a request about namespaces."""
    builder = flatbuffers.Builder(256)
    write = lambda name, *values: getattr(SCHEMA[name[0]], "".join(name))(builder, *values)
    name = builder.CreateString(fields["name"]) if "name" in fields else None
    settings = None
    if "settings" in fields:
        write(("NamespaceSettings", "Start"))
        for setting, value in fields["settings"].items():
            write(("NamespaceSettings", "Add" + setting.title().replace("_", "")), value)
        settings = write(("NamespaceSettings", "End"))
    write(("NamespaceChange", "Start"))
    if name is not None:
        write(("NamespaceChange", "AddName"), name)
    if settings is not None:
        write(("NamespaceChange", "AddSettings"), settings)
    builder.Finish(write(("NamespaceChange", "End")), file_identifier=b"LRNC")
    return bytes(builder.Output())


def read_namespaces(body):
    """The fields of a reply that shows namespaces."""
    table = reader("Namespaces", body)
    shown = [table.Namespaces(index) for index in range(table.NamespacesLength())]
    return {
        "namespaces": [
            {
                "name": namespace.Name().decode(),
                "number": namespace.Number(),
                "settings": read_settings(namespace.Settings()),
            }
            for namespace in shown
        ]
    }


def read_page_request(kind, body):
    """The fields of the body of a request for a page."""
    table = reader(FLAT[kind][0], body)
    if FLAT[kind][0] == "NamespaceChange":
        return read_change(table)
    if kind == "delete_items":
        strings = byte_strings(table, "record", "prefix", "from_key", "to_key")
        return {"namespace": table.Namespace(), **strings}
    names = ["token"] if kind == "scan" else ["record", "prefix", "from_key", "to_key", "token"]
    fields = {
        "namespace": table.Namespace(),
        "items_max": table.ItemsMax(),
        "bytes_max": table.BytesMax(),
        "value_bytes_max": table.ValueBytesMax(),
        "keys_only": table.KeysOnly(),
        **byte_strings(table, *names),
    }
    fields["descending"] = table.Order() == 1
    # 0 and false are as good as missing.
    fields.update({"lease": table.Lease()} if table.Lease() else {})
    fields.update({"passes_damage": True} if table.PassesDamage() else {})
    if kind == "get_items" and not table.KeysIsNone():
        lengths = [table.KeyLengths(at) for at in range(table.KeyLengthsLength())]
        keys = byte_strings(table, "keys")["keys"]
        ends = [2 * sum(lengths[: at + 1]) for at in range(len(lengths))]
        fields["keys"] = [keys[end - 2 * length : end] for end, length in zip(ends, lengths)]
    return fields


def page_request_body(kind, fields):
    """The body of a request for a page."""
    if FLAT[kind][0] == "NamespaceChange":
        return change_body(fields)
    module, name = FLAT[kind]
    write = lambda what, *values: getattr(SCHEMA[module], f"{module}{what}")(builder, *values)
    builder = flatbuffers.Builder(256)
    names = [it for it in ("record", "prefix", "from_key", "to_key", "token") if it in fields]
    written = {it: builder.CreateByteVector(bytes.fromhex(fields[it])) for it in names}
    if "keys" in fields:
        keys = [bytes.fromhex(key) for key in fields["keys"]]
        written["keys"] = builder.CreateByteVector(b"".join(keys))
        write("StartKeyLengthsVector", len(keys))
        for key in reversed(keys):
            builder.PrependUint16(len(key))
        written["key_lengths"] = builder.EndVector()
    write("Start")
    for it, offset in written.items():
        write(f"Add{it.title().replace('_', '')}", offset)
    write("AddNamespace", fields["namespace"])
    if kind != "delete_items":
        write("AddItemsMax", fields.get("items_max", 0))
        write("AddBytesMax", fields.get("bytes_max", 0))
        write("AddValueBytesMax", fields.get("value_bytes_max", 0))
        write("AddKeysOnly", fields.get("keys_only", False))
    if kind != "delete_items":
        write("AddOrder", int(fields.get("descending", False)))
        write("AddLease", fields.get("lease", 0))
        write("AddPassesDamage", fields.get("passes_damage", False))
    builder.Finish(write("End"), file_identifier=name.encode())
    return bytes(builder.Output())


def read_page(body):
    """The fields of a page."""
    page = reader("Page", body)
    items = []
    for at in range(page.ItemsLength()):
        item = page.Items(at)
        fixed = {
            "version": item.Version(),
            "client_flags": item.ClientFlags(),
            "expiry": item.Expiry(),
            "value_length": item.ValueBytes(),
        }
        items.append({**fixed, **byte_strings(item, "record", "item", "value")})
    damaged = {"damaged": True} if page.Damaged() else {}
    return {"items": items, **damaged, **byte_strings(page, "next")}


def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def message(magic, opcode, code, request_id, details, body, checksum):
    header = HEADER.pack(magic, VERSION, opcode, code, len(body), request_id, details, 0)
    if checksum:
        header = header[:20] + struct.pack("<I", crc32c(header[:20] + body))
    return header + body


def request_body(kind, fields):
    """The body of a request, by the tables of PROTOCOL.md."""
    if kind == "statistics":
        return b""
    if kind == "ping":
        return bytes.fromhex(fields["bytes"])
    if kind == "hello":
        versions = struct.pack("<HHI", fields["version_min"], fields["version_max"], 0)
        return versions + fields["name"].encode()
    if kind in FLAT:
        return page_request_body(kind, fields)
    if kind == "mutate_record":
        return mutate_body(fields)
    if kind == "multi_get":
        return multi_get_body(fields)
    if kind == "begin_lease":
        record = bytes.fromhex(fields.get("record", ""))
        shard = fields.get("shard", 0)
        return struct.pack("<IHH", fields["milliseconds"], shard, len(record)) + record
    if kind == "end_lease":
        return struct.pack("<Q", fields["lease"])
    record, item = bytes.fromhex(fields["record"]), bytes.fromhex(fields["item"])
    head = KEY.pack(fields["namespace"], len(record), len(item))
    demanded, value = bytes.fromhex(fields.get("if_value", "")), b""
    if kind == "get":
        options = fields["metadata_only"] * 1 + fields["quiet"] * 2
        fixed = struct.pack("<II", options, 0)
    elif kind == "put":
        mode, version = PUT_MODES.index(fields["mode"]), fields.get("version", 0)
        flags, ttl = fields["client_flags"], fields["ttl"]
        fixed = struct.pack("<IIIIQ", mode, flags, ttl, len(demanded), version)
        value = bytes.fromhex(fields["value"])
    elif kind == "delete":
        mode = 3 if "version" in fields else 6 if "if_value" in fields else 0
        fixed = struct.pack("<IIQ", mode, 0, fields.get("version", 0))
    elif kind == "increment":
        creates = "initial" in fields
        options = fields["decrement"] * 1 + creates * 2
        fixed = struct.pack(
            "<IIQQ", options, fields.get("ttl", 0), fields["delta"], fields.get("initial", 0)
        )
    elif kind == "stage":
        fixed = struct.pack("<II", fields["length"], 0)
    elif kind in ("put_chunk", "get_chunk"):
        fixed = struct.pack("<QII", fields["upload"], fields["index"], 0)
        value = bytes.fromhex(fields.get("bytes", ""))
    elif kind == "commit":
        mode, version = PUT_MODES.index(fields["mode"]), fields.get("version", 0)
        flags, ttl = fields["client_flags"], fields["ttl"]
        fixed = struct.pack("<IIIIQQ", mode, flags, ttl, 0, version, fields["upload"])
    elif kind == "abort":
        fixed = struct.pack("<Q", fields["upload"])
    else:
        fixed = struct.pack("<II", fields["ttl"], 0)
    return head + fixed + record + item + demanded + value


def multi_get_body(fields):
    """The body of a read of several items, by the tables of PROTOCOL.md."""
    options = fields["metadata_only"] * 1 + fields["quiet"] * 2
    body = struct.pack("<IHH", fields["namespace"], len(fields["gets"]), options)
    for get in fields["gets"]:
        record, item = bytes.fromhex(get["record"]), bytes.fromhex(get["item"])
        body += struct.pack("<HH", len(record), len(item)) + record + item
    return body


def mutate_body(fields):
    """The body of a list of changes, by the tables of PROTOCOL.md."""
    record, changes = bytes.fromhex(fields["record"]), fields["changes"]
    body = struct.pack("<IHH", fields["namespace"], len(record), len(changes)) + record
    for change in changes:
        names = ("item", "if_value", "value")
        item, demanded, value = (bytes.fromhex(change.get(name, "")) for name in names)
        body += struct.pack(
            "<BBHIIIQQ",
            CHANGES.index(change["kind"]),
            0,
            len(item),
            change.get("client_flags", 0),
            change.get("ttl", 0),
            len(value),
            len(demanded) or change.get("version", change.get("delta", 0)),
            change.get("initial", 0),
        )
        body += item + demanded + value
    return body


def request_bytes(vector):
    checksum = vector["checksum"]
    body = request_body(vector["kind"], vector["fields"])
    opcode = OPCODES[vector["kind"]]
    flags = int(checksum) | DURABILITY.get(vector.get("durability"), 0)
    if "token" in vector:
        token = vector["token"]
        body = struct.pack("<Q", token["time"]) + bytes.fromhex(token["nonce"]) + body
        flags |= TOKEN
    return message(REQUEST, opcode, flags, vector["id"], vector["deadline"], body, checksum)


HELLO_NUMBERS = [
    "version", "shards", "hash_seed", "cores", "core", "record_bytes_max", "item_bytes_max",
    "value_bytes_max", "body_bytes_max", "requests_max", "page_items_max", "page_bytes_max",
    "read_target_microseconds", "write_target_microseconds", "capabilities",
    "token_window_seconds", "token_drift_seconds", "large_bytes_max", "chunk_bytes_max",
]


def read_reply(kind, body):
    """The fields of a reply whose status is OK, by the tables of PROTOCOL.md."""
    if kind == "hello":
        said = reader("HelloReply", body)
        measured = ["read_p99_microseconds", "write_p99_microseconds"]
        lists = ["core_ports", "opcodes", "shard_loads", *measured]
        names = [*HELLO_NUMBERS, "software", *lists]
        getters = {name: "".join(part.title() for part in name.split("_")) for name in names}
        fields = {name: getattr(said, getters[name])() for name in HELLO_NUMBERS}
        for name in lists:
            length = getattr(said, getters[name] + "Length")()
            fields[name] = [getattr(said, getters[name])(at) for at in range(length)]
        return {**fields, "software": said.Software().decode()}
    if kind == "statistics":
        figures = reader("Statistics", body)
        figures = [figures.Values(at) for at in range(figures.ValuesLength())]
        return {"values": [[it.Name().decode(), it.Value().decode()] for it in figures]}
    if kind == "multi_get":
        entries, at = [], 0
        while at < len(body):
            status, length = struct.unpack_from("<BxxxI", body, at)
            found = body[at + 8 : at + 8 + length]
            entries.append({"status": status, **(read_reply("get", found) if found else {})})
            at += 8 + length
        return {"entries": entries}
    if kind in ("get", "touch", "get_and_touch"):
        version, client_flags, expiry, length, _ = struct.unpack_from("<QIIII", body)
        return {
            "version": version,
            "client_flags": client_flags,
            "expiry": expiry,
            "value_length": length,
            "value": body[24:].hex(),
        }
    if kind in ("get_items", "scan"):
        return read_page(body)
    if kind == "mutate_record":
        changed = struct.iter_unpack("<QQ", body)
        return {"changed": [{"version": version, "number": number} for version, number in changed]}
    if kind == "stage":
        return dict(zip(("upload", "length", "chunk_length"), struct.unpack("<QII", body)))
    if kind in ("put", "commit"):
        return {"version": struct.unpack("<Q", body)[0]}
    if kind == "increment":
        return dict(zip(("number", "version"), struct.unpack("<QQ", body)))
    if kind in ("create_namespace", "set_namespace", "list_namespaces"):
        return read_namespaces(body)
    if kind == "begin_lease":
        return dict(zip(("lease", "milliseconds", "shard"), struct.unpack("<QIHxx", body)))
    if kind in ("delete", "delete_items", "drop_namespace", "put_chunk", "abort", "end_lease"):
        assert body == b"", body
        return {}
    return {"bytes": body.hex()}


def read_large(body):
    """The fields of a reply that shows an item with a large value."""
    return {**read_reply("get", body[:24]), "large": read_reply("stage", body[24:])}


def check_vectors():
    folder = ROOT / "protocol" / "vectors"
    requests = json.loads((folder / "requests.json").read_text())
    for vector in requests:
        data, kind = bytes.fromhex(vector["hex"]), vector["kind"]
        if kind in FLAT:
            # Two writers of a FlatBuffer may order its parts in two ways: both are to be read.
            written = page_request_body(kind, vector["fields"])
            token_bytes = TOKEN_BYTES if "token" in vector else 0
            for body in (data[HEADER.size + token_bytes :], written):
                assert read_page_request(kind, body) == vector["fields"], vector["name"]
            same = message(
                REQUEST,
                OPCODES[kind],
                int(vector["checksum"]) | (TOKEN if token_bytes else 0),
                vector["id"],
                vector["deadline"],
                data[HEADER.size :],
                vector["checksum"],
            )
            assert same == data, vector["name"]
        else:
            assert request_bytes(vector).hex() == vector["hex"], vector["name"]
    for vector in json.loads((folder / "replies.json").read_text()):
        data = bytes.fromhex(vector["hex"])
        magic, version, opcode, status, length, request_id, details, checksum = HEADER.unpack_from(
            data
        )
        assert (magic, version, opcode) == (REPLY, VERSION, OPCODES[vector["kind"]])
        assert (status, request_id) == (vector["status"], vector["id"]), vector["name"]
        assert details & 0xFF == vector["hops"] and len(data) == HEADER.size + length
        has_checksum = details >> 8 & 1
        assert has_checksum == vector["checksum"], vector["name"]
        if has_checksum:
            assert checksum == crc32c(data[:20] + data[24:]), vector["name"]
        if status == OK:
            assert read_reply(vector["kind"], data[24:]) == vector["fields"], vector["name"]
        elif status == LARGE:
            assert read_large(data[24:]) == vector["fields"], vector["name"]
        elif "refused" in vector["fields"]:
            assert struct.unpack("<I", data[24:])[0] == vector["fields"]["refused"]
        else:
            assert data[24:].decode() == vector["fields"].get("reason", ""), vector["name"]
    return len(requests)


class Client:
    def __init__(self, host, port):
        self.socket = socket.create_connection((host, port), timeout=20)
        self.next_id = 0
        self.replies = {}

    def send(self, kind, checksum=False, durability=None, token=None, **fields):
        self.next_id += 1
        fields = {"namespace": 0, "item": b"", **fields}
        fields = {k: v.hex() if isinstance(v, bytes) else v for k, v in fields.items()}
        vector = {"kind": kind, "id": self.next_id, "deadline": 0, "checksum": checksum}
        vector["durability"] = durability
        if isinstance(token, dict):
            vector["token"] = token
        elif token is not None:
            fields["token"] = token if isinstance(token, str) else token.hex()
        self.socket.sendall(request_bytes({**vector, "fields": fields}))
        return self.next_id

    def receive(self, length):
        data = b""
        while len(data) < length:
            part = self.socket.recv(length - len(data))
            assert part, "the node has closed the connection"
            data += part
        return data

    def wait(self, request_id):
        while request_id not in self.replies:
            header = self.receive(HEADER.size)
            magic, _, _, status, length, found, details, checksum = HEADER.unpack(header)
            assert magic == REPLY
            body = self.receive(length)
            if details >> 8 & 1:
                assert checksum == crc32c(header[:20] + body)
            self.replies[found] = (status, body)
        return self.replies.pop(request_id)

    def ask(self, kind, **fields):
        status, body = self.wait(self.send(kind, **fields))
        if status == LARGE:
            return status, read_large(body)
        if status == MISSING_CHUNK or (kind == "mutate_record" and OK < status < MALFORMED):
            return status, struct.unpack("<I", body)[0]
        return status, read_reply(kind, body) if status == OK else body.decode()


def hello(client):
    """The node's hello through a reader that flatc has generated."""
    status, body = client.wait(client.send("hello", version_min=1, version_max=1, name="python"))
    assert status == OK, body
    reply = reader("HelloReply", body)
    assert reply.Version() == 1 and reply.Shards() >= 1 and reply.Cores() >= 1
    assert reply.Software().startswith(b"larder "), reply.Software()
    opcodes = {reply.Opcodes(index) for index in range(reply.OpcodesLength())}
    assert opcodes == set(OPCODES.values()), opcodes
    assert reply.ShardLoadsLength() == reply.Shards() and reply.Capabilities() & 15 == 15
    assert all(reply.ShardLoads(at) <= 100 for at in range(reply.Shards()))
    assert reply.ReadTargetMicroseconds() == reply.WriteTargetMicroseconds() == 0
    assert reply.LargeBytesMax() == 128 << 20 and reply.ChunkBytesMax() >= 1000
    assert reply.PageItemsMax() >= 1000 and reply.PageBytesMax() >= 1000
    assert (reply.TokenWindowSeconds(), reply.TokenDriftSeconds()) == (600, 60)
    return reply.ValueBytesMax()


def follow(client, kind, **fields):
    """The items of all pages."""
    items, token = [], {}
    while True:
        status, page = client.ask(kind, **fields, **token)
        assert status == OK, page
        items += page["items"]
        if "next" not in page:
            return items
        token = {"token": page["next"]}


def pages(client):
    names = [b"%03d" % number for number in range(100)]
    put = {"record": b"paged", "client_flags": 0, "ttl": 0, "mode": "set"}
    ids = [client.send("put", **put, item=name, value=b"v" + name) for name in names]
    assert all(client.wait(request_id)[0] == OK for request_id in ids)
    shown = follow(client, "get_items", record=b"paged", items_max=7)
    assert [item["item"] for item in shown] == [name.hex() for name in names]
    assert all(item["value"] == (b"v" + bytes.fromhex(item["item"])).hex() for item in shown)
    shown = follow(client, "get_items", record=b"paged", prefix=b"01", descending=True)
    assert [item["item"] for item in shown] == [name.hex() for name in names[19:9:-1]]
    some = {"record": b"paged", "from_key": b"010", "to_key": b"020"}
    shown = follow(client, "get_items", **some, keys_only=True, bytes_max=50)
    assert [item["item"] for item in shown] == [name.hex() for name in names[10:20]]
    assert all("value" not in item and item["value_length"] == 4 for item in shown)
    assert follow(client, "get_items", record=b"paged", from_key=b"2", to_key=b"1") == []
    list = [b"042", b"none", b"007", b"042", b"099"]
    listed = {"record": b"paged", "keys": [key.hex() for key in list]}
    shown = follow(client, "get_items", **listed, items_max=1)
    assert [bytes.fromhex(item["item"]) for item in shown] == [b"042", b"007", b"042", b"099"]
    assert all(item["value"] == (b"v" + bytes.fromhex(item["item"])).hex() for item in shown)
    status, reason = client.ask("get_items", **listed, prefix=b"0")
    assert status == MALFORMED and "keys" in reason
    assert client.ask("get_items", **listed, descending=True)[0] == MALFORMED
    scanned = follow(client, "scan", items_max=30)
    shown = [item for item in scanned if item["record"] == b"paged".hex()]
    assert sorted(item["item"] for item in shown) == [name.hex() for name in names]
    assert follow(client, "scan", items_max=30, descending=True) == scanned[::-1]
    _, page = client.ask("get_items", record=b"paged", items_max=3)
    status, reason = client.ask("get_items", record=b"other", token=page["next"])
    assert status == BAD_TOKEN and "token" in reason
    flipped = bytes.fromhex(page["next"])[:-1] + b"\0\0"
    assert client.ask("get_items", record=b"paged", token=flipped)[0] == BAD_TOKEN
    status, reason = client.ask("get_items", **some, prefix=b"0")
    assert status == MALFORMED and "prefix" in reason


def changes(client):
    """Changes of a record that are made as a whole, and ranges that go."""
    change = lambda kind, item, **rest: {"kind": kind, "item": item.hex(), **rest}
    mutate = lambda *list: client.ask("mutate_record", record=b"batch", changes=list)
    plain = {"mode": "set", "client_flags": 0, "ttl": 0}
    status, done = mutate(
        change("set", b"one", value=b"1".hex(), client_flags=7, ttl=100),
        change("put_if_absent", b"two", value=b"2".hex()),
        change("increment_or_create", b"count", delta=5, initial=40),
        change("delete", b"none"),
    )
    assert status == OK and [one["number"] for one in done["changed"]] == [0, 0, 40, 0]
    versions = [one["version"] for one in done["changed"]]
    assert versions[3] == 0 and versions[0] < versions[1] < versions[2]
    before = follow(client, "get_items", record=b"batch")
    assert [bytes.fromhex(item["item"]) for item in before] == [b"count", b"one", b"two"]
    for last, expected in (
        (change("put_if_absent", b"two", value=""), EXISTS),
        (change("put_if_present", b"none", value=""), ABSENT),
        (change("put_if_version", b"two", value="", version=versions[1] + 1), VERSION_DIFFERS),
        (change("delete_if_version", b"two", version=versions[0]), VERSION_DIFFERS),
        (change("put_if_value", b"two", if_value=b"22".hex()), VALUE_DIFFERS),
        (change("delete_if_value", b"two", if_value=""), VALUE_DIFFERS),
        (change("delete_if_value", b"none", if_value=""), ABSENT),
        (change("increment", b"two2", delta=1), ABSENT),
        (change("check_present", b"none"), ABSENT),
    ):
        status, at = mutate(change("set", b"one", value=""), change("delete", b"count"), last)
        assert (status, at) == (expected, 2), (status, at)
        assert follow(client, "get_items", record=b"batch") == before
    status, done = mutate(
        change("append", b"one", value=b"!".hex()),
        change("decrement", b"count", delta=2),
        change("check_present", b"two"),
        change("put_if_value", b"new", if_value=b"was".hex(), value=b"is".hex()),
    )
    assert (status, done) == (ABSENT, 3)
    assert client.ask("put", record=b"batch", item=b"new", **plain, value=b"was")[0] == OK
    status, done = mutate(
        change("append", b"one", value=b"!".hex()),
        change("decrement", b"count", delta=2),
        change("check_present", b"two"),
        change("put_if_value", b"new", if_value=b"was".hex(), value=b"is".hex()),
    )
    assert status == OK and done["changed"][1]["number"] == 38, done
    assert done["changed"][2]["version"] == versions[1]
    assert mutate(change("delete_if_value", b"new", if_value=b"is".hex()))[0] == OK
    status, reason = mutate(change("delete", b"one"), change("delete", b"one"))
    assert status == MALFORMED and "same item" in reason
    names = [b"%03d" % number for number in range(100)]
    puts = [change("set", name, value=name.hex()) for name in names]
    assert client.ask("mutate_record", record=b"range", changes=puts)[0] == OK
    left = lambda: [
        bytes.fromhex(item["item"]) for item in follow(client, "get_items", record=b"range")
    ]
    assert client.ask("delete_items", record=b"range", prefix=b"01") == (OK, {})
    assert left() == names[:10] + names[20:]
    assert client.ask("delete_items", record=b"range", from_key=b"090") == (OK, {})
    assert client.ask("delete_items", record=b"range", to_key=b"005") == (OK, {})
    assert left() == names[5:10] + names[20:90]
    assert client.ask("delete_items", record=b"range") == (OK, {}) and left() == []
    status, reason = client.ask("delete_items", record=b"range", prefix=b"0", to_key=b"1")
    assert status == MALFORMED and "prefix" in reason


def leases(client):
    """Pages of one moment, whatever is written meanwhile."""
    put = {"record": b"leased", "client_flags": 0, "ttl": 0, "mode": "set"}
    names = [b"%02d" % number for number in range(20)]
    for name in names:
        assert client.ask("put", **put, item=name, value=b"before")[0] == OK
    status, lease = client.ask("begin_lease", record=b"leased", milliseconds=0)
    assert status == OK and lease["milliseconds"] > 0, lease
    for name in names[:10]:
        assert client.ask("put", **put, item=name, value=b"after")[0] == OK
    assert client.ask("delete_items", record=b"leased", from_key=b"15") == (OK, {})
    of_lease = {"lease": lease["lease"]}
    shown = follow(client, "get_items", record=b"leased", items_max=3, **of_lease)
    assert [item["item"] for item in shown] == [name.hex() for name in names]
    assert all(item["value"] == b"before".hex() for item in shown)
    assert len(follow(client, "get_items", record=b"leased")) == 15
    scanned = follow(client, "scan", items_max=50, **of_lease)
    leased = [item for item in scanned if item["record"] == b"leased".hex()]
    assert [item["value"] for item in leased] == [item["value"] for item in shown]
    status, again = client.ask("begin_lease", shard=lease["shard"], milliseconds=5)
    assert status == OK and again["milliseconds"] == 5
    assert client.ask("end_lease", **of_lease) == (OK, {})
    assert client.ask("end_lease", **of_lease)[0] == LEASE_ENDED
    status, reason = client.ask("get_items", record=b"leased", **of_lease)
    assert status == LEASE_ENDED and "lease" in reason
    assert client.ask("get_items", record=b"leased", passes_damage=True)[0] == OK
    assert client.ask("delete_items", record=b"leased") == (OK, {})


def namespaces(client):
    """Namespaces, from their making to their end."""
    put = {"record": b"r", "client_flags": 0, "mode": "set"}
    get = {"record": b"r", "metadata_only": False, "quiet": False}
    settings = {"ttl_max": 1000, "value_bytes_max": 10}
    status, made = client.ask("create_namespace", name="python", settings=settings)
    assert status == OK, made
    (made,) = made["namespaces"]
    assert made["name"] == "python" and made["settings"]["ttl_max"] == 1000
    assert made["settings"]["cache"] == 0 and set(made["settings"]) == set(SETTINGS)
    assert client.ask("create_namespace", name="python", settings={})[0] == NAMESPACE_EXISTS
    number = made["number"]
    assert client.ask("put", namespace=number, **put, ttl=0, value=b"v")[0] == OK
    status, found = client.ask("get", namespace=number, **get)
    assert status == OK and found["value"] == b"v".hex() and found["expiry"] > 0
    assert client.ask("get", **get)[0] == ABSENT
    assert client.ask("put", namespace=number, **put, ttl=0, value=b"v" * 11)[0] == TOO_LARGE
    status, changed = client.ask("set_namespace", name="python", settings={"cache": 2})
    assert status == OK and changed["namespaces"][0]["settings"]["value_bytes_max"] == 10
    status, all = client.ask("list_namespaces")
    assert [it["name"] for it in all["namespaces"]] == ["default", "python"], all
    assert client.ask("list_namespaces", name="python") == (OK, changed)
    assert client.ask("list_namespaces", name="nobody")[0] == UNKNOWN_NAMESPACE
    assert client.ask("drop_namespace", name="python") == (OK, {})
    assert client.ask("drop_namespace", name="python")[0] == UNKNOWN_NAMESPACE
    assert client.ask("get", namespace=number, **get)[0] == UNKNOWN_NAMESPACE
    assert client.ask("drop_namespace", name="default")[0] == NAMESPACE_EXISTS


def once(client):
    """Requests that are sent again, and done once."""
    now = int(time.time() * 1_000_000)
    token = lambda nonce, late=0: {"time": now - late * 1_000_000, "nonce": nonce.hex()}
    counter = {"record": b"once", "decrement": False, "delta": 1, "initial": 1, "ttl": 0}
    first = token(b"0123456789abcdef")
    status, told = client.ask("increment", token=first, **counter)
    assert (status, told["number"]) == (OK, 1)
    assert client.ask("increment", **counter)[1]["number"] == 2
    assert client.ask("increment", token=first, **counter) == (OK, told)
    other = {**counter, "delta": 2}
    assert client.ask("increment", token=first, **other)[0] == TOKEN_REFUSED
    assert client.ask("increment", **counter)[1]["number"] == 3
    for refused in (token(b"q" * 16, late=7200), token(b"r" * 16, late=-7200)):
        status, reason = client.ask("increment", token=refused, **counter)
        assert status == TOKEN_REFUSED and "idempotency-window" in reason, reason
    put = {"record": b"put", "client_flags": 0, "ttl": 0, "mode": "if_absent", "value": b"v"}
    named = token(b"s" * 16)
    stored = client.ask("put", token=named, **put)
    assert stored[0] == OK and client.ask("put", token=named, **put) == stored
    gone = token(b"t" * 16)
    for _ in range(2):
        assert client.ask("delete", token=gone, record=b"put")[0] == OK
    assert client.ask("delete", record=b"put")[0] == ABSENT
    changes = [{"kind": "increment_or_create", "item": "6e", "delta": 1, "initial": 5}]
    made = [
        client.ask("mutate_record", token=token(b"u" * 16), record=b"list", changes=changes)
        for _ in range(2)
    ]
    assert made[0] == made[1] and made[0][1]["changed"][0]["number"] == 5, made
    # What was stored behind a deletion, or touched behind a touch, stays as it is.
    cleared, touched, read = token(b"v" * 16), token(b"w" * 16), token(b"x" * 16)
    stay = {**put, "record": b"cleared", "mode": "set"}
    assert client.ask("delete_items", token=cleared, record=b"cleared") == (OK, {})
    assert client.ask("put", **stay)[0] == OK
    assert client.ask("delete_items", token=cleared, record=b"cleared") == (OK, {})
    assert client.ask("touch", token=touched, record=b"cleared", ttl=1000)[1]["expiry"] > 0
    assert client.ask("touch", record=b"cleared", ttl=0)[1]["expiry"] == 0
    assert client.ask("touch", token=touched, record=b"cleared", ttl=1000)[1]["expiry"] == 0
    for _ in range(2):
        status, item = client.ask("get_and_touch", token=read, record=b"cleared", ttl=0)
        assert (status, item["value"]) == (OK, b"v".hex()), item
    other = client.ask("touch", token=read, record=b"cleared", ttl=0)
    assert other[0] == TOKEN_REFUSED, other


def round_trips(client):
    key = {"record": b"python\0record", "item": b"item"}
    put = {**key, "client_flags": 9, "ttl": 0}
    get = {**key, "metadata_only": False, "quiet": False}
    assert client.ask("ping", bytes=b"abc") == (OK, {"bytes": b"abc".hex()})
    assert client.ask("get", **get)[0] == ABSENT
    status, stored = client.ask("put", **put, mode="if_absent", value=b"value")
    assert status == OK
    assert client.ask("put", **put, mode="if_absent", value=b"no")[0] == EXISTS
    status, found = client.ask("get", **get)
    assert (found["value"], found["version"]) == (b"value".hex(), stored["version"])
    assert (found["client_flags"], found["expiry"]) == (9, 0)
    assert client.ask("put", **put, mode="append", value=b"!")[0] == OK
    assert client.ask("put", **put, mode="prepend", value=b"?")[0] == OK
    stale = client.ask("put", **put, mode="if_version", version=stored["version"], value=b"no")
    assert stale[0] == VERSION_DIFFERS
    _, found = client.ask("get_and_touch", **key, ttl=100)
    assert found["value"] == b"?value!".hex() and found["expiry"] > 0
    assert client.ask("touch", **key, ttl=0)[1]["expiry"] == 0
    _, found = client.ask("get", **{**get, "metadata_only": True})
    assert (found["value"], found["value_length"]) == ("", 7)
    assert client.ask("increment", **key, decrement=False, delta=1)[0] == NOT_A_NUMBER
    assert client.ask("delete", **key, version=1)[0] == VERSION_DIFFERS
    differs = {**put, "mode": "if_value", "if_value": b"value", "value": b"no"}
    assert client.ask("put", **differs)[0] == VALUE_DIFFERS
    assert client.ask("put", **{**differs, "if_value": b"?value!", "value": b""})[0] == OK
    assert client.ask("delete", **key, if_value=b"?value!")[0] == VALUE_DIFFERS
    assert client.ask("delete", **key, if_value=b"")[0] == OK
    assert client.ask("delete", **key)[0] == ABSENT
    assert client.ask("put", **differs)[0] == ABSENT
    counter = {"record": b"counter", "decrement": False, "delta": 5}
    assert client.ask("increment", **counter)[0] == ABSENT
    assert client.ask("increment", **counter, initial=40, ttl=0)[1]["number"] == 40
    assert client.ask("increment", **counter)[1]["number"] == 45
    status, reason = client.ask("get", **{**get, "namespace": 77})
    assert status == UNKNOWN_NAMESPACE and "default" in reason
    for durability in ("sync", "none"):
        kept = {**put, "record": durability.encode(), "mode": "set", "value": b"kept"}
        assert client.ask("put", durability=durability, **kept)[0] == OK
        found = {**get, "record": durability.encode()}
        assert client.ask("get", durability=durability, **found)[1]["value"] == b"kept".hex()
    ids = [
        client.send(
            "put", checksum=True, **{**put, "record": b"%d" % n}, mode="set", value=b"v" * n
        )
        for n in range(200)
    ]
    assert all(client.wait(request_id)[0] == OK for request_id in ids)
    ids = [client.send("get", checksum=True, **{**get, "record": b"%d" % n}) for n in range(200)]
    for n, request_id in enumerate(ids):
        status, body = client.wait(request_id)
        assert status == OK and body[24:] == b"v" * n


def statistics(client):
    """The node's figures, which count what was asked."""
    figures = lambda: dict(client.ask("statistics")[1]["values"])
    before = figures()
    assert int(before["curr_connections"]) >= 1 and int(before["threads"]) >= 1, before
    missing = {"record": b"not there", "metadata_only": False, "quiet": False}
    assert all(client.ask("get", **missing)[0] == ABSENT for _ in range(3))
    after = figures()
    assert int(after["get_misses"]) == int(before["get_misses"]) + 3


def many_gets(client):
    put = {"client_flags": 3, "ttl": 0, "mode": "set"}
    for n in range(50):
        assert client.ask("put", **put, record=b"many%d" % n, value=b"v" * n)[0] == OK
    some = lambda records: {
        "gets": [{"record": record.hex(), "item": ""} for record in records],
        "metadata_only": False,
        "quiet": False,
    }
    records = [b"many%d" % n for n in range(100)]
    status, reply = client.ask("multi_get", **some(records))
    assert status == OK and len(reply["entries"]) == 100
    for n, entry in enumerate(reply["entries"]):
        assert entry["status"] == (OK if n < 50 else ABSENT), entry
        assert n >= 50 or (entry["value"], entry["client_flags"]) == ((b"v" * n).hex(), 3)
    for n in range(4):
        assert client.ask("put", **put, record=b"large%d" % n, value=b"v" * 600_000)[0] == OK
    left, rounds = {b"large%d" % n for n in range(4)}, 0
    while left:
        asked, rounds = sorted(left), rounds + 1
        _, reply = client.ask("multi_get", **some(asked))
        statuses = [entry["status"] for entry in reply["entries"]]
        assert set(statuses) <= {OK, BUSY} and OK in statuses, statuses
        left -= {record for record, status in zip(asked, statuses) if status == OK}
    assert rounds == 4, rounds
    status, reason = client.ask("multi_get", **{**some(records[:2]), "gets": []})
    assert status == MALFORMED and "keys" in reason


def chunks(client):
    """A value that comes in chunks, from its staging to its end."""
    key = {"record": b"film", "item": b"reel"}
    value = bytes(n * n % 251 for n in range(1_300_000))
    status, staged = client.ask("stage", **key, length=len(value))
    assert status == OK and staged["length"] == len(value), staged
    upload, length = staged["upload"], staged["chunk_length"]
    parts = [value[at : at + length] for at in range(0, len(value), length)]
    commit = {**key, "upload": upload, "mode": "if_absent", "client_flags": 5, "ttl": 100}
    for index in reversed(range(len(parts))):
        assert client.ask("commit", **commit) == (MISSING_CHUNK, 0)
        chunk = {**key, "upload": upload, "index": index, "bytes": parts[index]}
        assert client.ask("put_chunk", **chunk) == (OK, {})
    wrong = {**key, "upload": upload, "index": 0, "bytes": parts[0][1:]}
    assert client.ask("put_chunk", **wrong)[0] == MALFORMED
    assert client.ask("get_chunk", **key, upload=upload, index=0)[0] == CHANGED
    status, stored = client.ask("commit", **commit)
    assert status == OK and client.ask("commit", **commit) == (OK, stored)
    get = {**key, "metadata_only": False, "quiet": False}
    status, shown = client.ask("get", **get)
    assert (status, shown["large"], shown["version"]) == (LARGE, staged, stored["version"])
    assert (shown["value_length"], shown["client_flags"]) == (len(value), 5)
    read = b""
    for index in range(len(parts)):
        status, found = client.ask("get_chunk", **key, upload=upload, index=index)
        read += bytes.fromhex(found["bytes"])
    assert read == value
    (listed,) = follow(client, "get_items", record=b"film")
    assert listed["value_length"] == len(value) and "value" not in listed
    append = {**key, "client_flags": 0, "ttl": 0, "value": b"more"}
    status, reason = client.ask("put", **append, mode="append")
    assert status == IS_LARGE and "large" in reason
    assert client.ask("commit", **{**commit, "upload": upload + 1})[0] == NO_UPLOAD
    assert client.ask("put", **append, mode="set")[0] == OK
    assert client.ask("get_chunk", **key, upload=upload, index=0)[0] == CHANGED
    status, staged = client.ask("stage", **key, length=10)
    assert client.ask("abort", **key, upload=staged["upload"]) == (OK, {})
    assert client.ask("abort", **key, upload=staged["upload"])[0] == NO_UPLOAD
    assert client.ask("stage", **key, length=0)[0] == TOO_LARGE
    assert client.ask("stage", **key, length=(128 << 20) + 1)[0] == TOO_LARGE


def mistakes(client):
    client.next_id += 2
    header = HEADER.pack(REQUEST, VERSION, 0x77, 0, 3, client.next_id, 0, 0)
    client.socket.sendall(header + b"abc")
    assert client.wait(client.next_id)[0] == UNKNOWN_OPCODE
    client.next_id += 1
    header = HEADER.pack(REQUEST, VERSION, 0x10, 0, 3, client.next_id, 0, 0)
    client.socket.sendall(header + b"abc")
    assert client.wait(client.next_id)[0] == MALFORMED
    assert client.ask("ping", bytes=b"")[0] == OK


def main():
    count = check_vectors()
    client = Client(sys.argv[1], int(sys.argv[2]))
    value_bytes_max = hello(client)
    round_trips(client)
    pages(client)
    changes(client)
    leases(client)
    namespaces(client)
    once(client)
    many_gets(client)
    chunks(client)
    statistics(client)
    mistakes(client)
    print(f"{count} vectors, values of at most {value_bytes_max} bytes: passed")


if __name__ == "__main__":
    main()
