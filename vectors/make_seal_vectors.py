#!/usr/bin/env python3
"""Writes seal-v1.json and passphrase-v1.json beside itself.

A second implementation of ciphertext format 1 and of the passphrase derivation, made from the
format's description and from PyPI `cryptography` (48 or later) alone. Everything is drawn from a
fixed seed: running it again writes the same bytes.
"""

import hashlib
import hmac
import json
import pathlib
import struct

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
from cryptography.hazmat.primitives.kdf.kbkdf import KBKDFHMAC, CounterLocation, Mode

SEED = b"keyway seal vectors, format 1"
MAGIC = {"seal": b"\xc7\x4b", "wrap": b"\xc7\x4d", "passphrase": b"\xc7\x50"}
KINDS = {"none": 0, "map": 1, "opaque": 2}


class Stream:
    """Bytes that look random and are the same every time."""

    def __init__(self, seed):
        self.seed = seed
        self.counter = 0

    def bytes(self, length):
        out = b""
        while len(out) < length:
            out += hashlib.sha256(self.seed + struct.pack(">Q", self.counter)).digest()
            self.counter += 1
        return out[:length]


def be32(number):
    return struct.pack(">I", number)


def encode_context(context):
    if context["kind"] == "none":
        return b"\x00"
    if context["kind"] == "opaque":
        raw = bytes.fromhex(context["bytes"])
        return b"\x02" + be32(len(raw)) + raw
    pairs = sorted((k.encode(), v.encode()) for k, v in context["pairs"])
    out = b"\x01" + be32(len(pairs))
    for key, value in pairs:
        out += be32(len(key)) + key + be32(len(value)) + value
    return out


def kdf(purpose, key, digest):
    label = b"keyway/v1/" + purpose.encode()
    derived = KBKDFHMAC(
        algorithm=hashes.SHA256(),
        mode=Mode.CounterMode,
        length=76,
        rlen=4,
        llen=4,
        location=CounterLocation.BeforeFixed,
        label=label,
        context=digest,
        fixed=None,
    ).derive(key)
    # The same once more by hand, so the description and the library have to agree.
    fixed = label + b"\x00" + digest + be32(608)
    blocks = [hmac.new(key, be32(i) + fixed, hashlib.sha256).digest() for i in (1, 2, 3)]
    assert derived == b"".join(blocks)[:76]
    return derived[:32], derived[32:44], derived[44:]


def seal(purpose, key, key_id, version, context, plaintext, fresh):
    encoded = encode_context(context)
    salt = hmac.new(key, b"salt" + fresh + plaintext, hashlib.sha256).digest()
    key_id = key_id.encode()
    header = MAGIC[purpose] + b"\x01\x01" + bytes([KINDS[context["kind"]]])
    header += be32(version) + bytes([len(key_id)]) + key_id + salt
    k, iv, c = kdf(purpose, key, hashlib.sha256(header + encoded).digest())
    return header + c + AESGCM(k).encrypt(iv, plaintext, header + c + encoded)


def contexts(stream):
    long_value = "v" * 4096
    return [
        ("none", {"kind": "none"}),
        ("map of one", {"kind": "map", "pairs": [["bucket", "backups"]]}),
        (
            "map of two, out of order",
            {"kind": "map", "pairs": [["tenant", "acme"], ["object", "reports/2025.parquet"]]},
        ),
        (
            "map of text that is not ASCII, and of empty text",
            {"kind": "map", "pairs": [["é", "Ω"], ["e\u0301", " "], ["", "no key"], ["z", ""]]},
        ),
        (
            "map of 64",
            {"kind": "map", "pairs": [[f"key-{n}", f"value-{n}"] for n in range(64)]},
        ),
        (
            "map at the size limit",
            {"kind": "map", "pairs": [["a" * 128, long_value], ["b" * 3, "w" * (8192 - 128 - 4096 - 3)]]},
        ),
        ("opaque, one byte", {"kind": "opaque", "bytes": "00"}),
        ("opaque, that looks like a map", {"kind": "opaque", "bytes": "0100000000"}),
        ("opaque, 300 bytes", {"kind": "opaque", "bytes": stream.bytes(300).hex()}),
    ]


def seal_vectors():
    stream = Stream(SEED)
    plaintexts = [stream.bytes(n) for n in (32, 0, 1, 15, 16, 17, 64, 4096)]
    ids = [("my-key", 1), ("k", 2), ("i" * 128, 4294967295), ("ключ-é", 256)]
    vectors = []

    def add(name, purpose, key, key_id, version, context, plaintext, fresh):
        blob = seal(purpose, key, key_id, version, context, plaintext, fresh)
        vectors.append(
            {
                "name": name,
                "purpose": purpose,
                "key": key.hex(),
                "key_id": key_id,
                "key_version": version,
                "context": context,
                "encoded_context": encode_context(context).hex(),
                "plaintext": plaintext.hex(),
                "fresh": fresh.hex(),
                "blob": blob.hex(),
            }
        )

    for purpose in MAGIC:
        for index, (name, context) in enumerate(contexts(stream)):
            key_id, version = ids[index % len(ids)]
            plaintext = plaintexts[index % len(plaintexts)]
            add(f"{purpose}: {name}", purpose, stream.bytes(32), key_id, version, context, plaintext, stream.bytes(32))
    for plaintext in plaintexts:
        add(
            f"seal: plaintext of {len(plaintext)}",
            "seal",
            stream.bytes(32),
            "my-key",
            7,
            {"kind": "map", "pairs": [["object", "o"]]},
            plaintext,
            stream.bytes(32),
        )
    add(
        "self-test",
        "seal",
        b"\x11" * 32,
        "self-test",
        1,
        {"kind": "map", "pairs": [["purpose", "self-test"]]},
        b"\x22" * 32,
        b"\x33" * 32,
    )
    return vectors


def invalid_vectors():
    """Blobs that must not open, each one step away from one that does."""
    stream = Stream(SEED + b", invalid")
    key, fresh, plaintext = stream.bytes(32), stream.bytes(32), stream.bytes(32)
    pairs = [["object", "o"], ["tenant", "acme"]]
    context = {"kind": "map", "pairs": pairs}
    good = seal("seal", key, "my-key", 3, context, plaintext, fresh)
    vectors = []

    def add(why, blob, purpose="seal", key=key, context=context):
        vectors.append(
            {"why": why, "purpose": purpose, "key": key.hex(), "context": context, "blob": blob.hex()}
        )

    def changed(offset, replacement):
        return good[:offset] + replacement + good[offset + len(replacement) :]

    add("empty", b"")
    add("magic only", good[:2])
    add("no tag", good[: 10 + 6 + 32 + 32])
    add("one byte short", good[:-1])
    add("one byte long", good + b"\x00")
    add("format 0", changed(2, b"\x00"))
    add("format 2", changed(2, b"\x02"))
    add("suite 0", changed(3, b"\x00"))
    add("suite 2 is reserved", changed(3, b"\x02"))
    add("context kind none for a map", changed(4, b"\x00"))
    add("context kind opaque for a map", changed(4, b"\x02"))
    add("context kind 3", changed(4, b"\x03"))
    add("version 0", changed(5, b"\x00\x00\x00\x00"))
    add("another version", changed(5, b"\x00\x00\x00\x04"))
    add("version in little endian", changed(5, b"\x03\x00\x00\x00"))
    add("key id of no bytes", changed(9, b"\x00"))
    add("key id of 129 bytes", good[:9] + b"\x81" + b"k" * 129 + good[16:])
    add("key id longer than the blob", changed(9, b"\x80"))
    add("key id not UTF-8", changed(10, b"\xff"))
    add("another key id of the same length", changed(10, b"my-kex"))
    add("salt changed", changed(16, bytes([good[16] ^ 1])))
    add("commitment changed", changed(48, bytes([good[48] ^ 1])))
    add("commitment of zeros", changed(48, bytes(32)))
    add("ciphertext changed", changed(80, bytes([good[80] ^ 1])))
    add("tag changed", good[:-1] + bytes([good[-1] ^ 0x80]))
    add("another key", good, key=stream.bytes(32))
    add("no context", good, context={"kind": "none"})
    add("a pair missing", good, context={"kind": "map", "pairs": pairs[:1]})
    add("a pair more", good, context={"kind": "map", "pairs": pairs + [["x", ""]]})
    add("a value changed", good, context={"kind": "map", "pairs": [["object", "O"], pairs[1]]})
    add("key and value swapped", good, context={"kind": "map", "pairs": [["o", "object"], pairs[1]]})
    encoded = encode_context(context)
    add("the map's encoding as opaque bytes", good, context={"kind": "opaque", "bytes": encoded.hex()})
    add("opened for another purpose", good, purpose="wrap")
    add("magic of another purpose", b"\xc7\x4d" + good[2:], purpose="wrap")
    add("wrapped, opened as sealed", seal("wrap", key, "my-key", 3, context, plaintext, fresh))
    wrong_label = seal("wrap", key, "my-key", 3, context, plaintext, fresh)
    add("wrapped, with the magic of sealed", MAGIC["seal"] + wrong_label[2:])
    # Right key and header throughout, but the tag binds no context: the commitment alone must not
    # be enough.
    header = good[:48]
    k, iv, c = kdf("seal", key, hashlib.sha256(header + encoded).digest())
    add("tag without context", header + c + AESGCM(k).encrypt(iv, plaintext, header + c))
    add("tag without commitment", header + c + AESGCM(k).encrypt(iv, plaintext, header + encoded))
    add("tag without header", header + c + AESGCM(k).encrypt(iv, plaintext, encoded))
    # And a valid tag under a commitment that was not derived.
    other = bytes([c[0] ^ 1]) + c[1:]
    add("tag over another commitment", header + other + AESGCM(k).encrypt(iv, plaintext, header + other + encoded))
    return vectors


def passphrase_vectors():
    stream = Stream(SEED + b", passphrase")
    vectors = []
    for passphrase, memory_kib, passes, lanes in [
        ("correct horse battery staple", 19 * 1024, 2, 1),
        ("пароль é ", 19 * 1024, 3, 4),
        ("x", 64 * 1024, 3, 1),
    ]:
        salt = stream.bytes(16)
        key = Argon2id(
            salt=salt, length=32, iterations=passes, lanes=lanes, memory_cost=memory_kib
        ).derive(passphrase.encode())
        vectors.append(
            {
                "passphrase": passphrase,
                "salt": salt.hex(),
                "memory_kib": memory_kib,
                "passes": passes,
                "lanes": lanes,
                "key": key.hex(),
            }
        )
    return vectors


def write(name, content):
    path = pathlib.Path(__file__).with_name(name)
    text = json.dumps(content, indent=1, ensure_ascii=False) + "\n"
    path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    write("seal-v1.json", {"format": 1, "valid": seal_vectors(), "invalid": invalid_vectors()})
    write("passphrase-v1.json", {"algorithm": "Argon2id", "version": 19, "valid": passphrase_vectors()})
