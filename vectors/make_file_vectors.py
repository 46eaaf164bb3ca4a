#!/usr/bin/env python3
"""Writes file-v1.json beside itself.

A second implementation of the encrypted files' format 1, made from docs/file-format.md and from PyPI
`cryptography` (48 or later) alone. Everything is drawn from a fixed seed: running it again writes the same bytes.
"""

import hashlib
import hmac
import json
import pathlib
import struct

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

SEED = b"keyway file vectors, format 1"
CHUNK = 65536
LABEL = b"keyway/v1/file"


def stream(seed, length):
    """Bytes that look random and are the same every time: SHA-256(seed || BE64(n)) for n = 0, 1, ..."""
    blocks = (hashlib.sha256(seed + struct.pack(">Q", n)).digest() for n in range(-(-length // 32)))
    return b"".join(blocks)[:length]


def encode_context(pairs):
    if not pairs:
        return b"\x00"
    out = b"\x01" + struct.pack(">I", len(pairs))
    for key, value in sorted((k.encode(), v.encode()) for k, v in pairs):
        out += struct.pack(">I", len(key)) + key + struct.pack(">I", len(value)) + value
    return out


def header(key_id, wrapped_key, context, salt, chunk=CHUNK):
    out = b"\xc7\x46\x01\x01" + struct.pack(">I", chunk) + salt
    out += struct.pack(">B", len(key_id)) + key_id
    out += struct.pack(">H", len(wrapped_key)) + wrapped_key
    return out + struct.pack(">I", len(context)) + context


def keys(data_key, salt, head):
    info = LABEL + hashlib.sha256(head).digest()
    derived = HKDF(hashes.SHA256(), 71, salt, info).derive(data_key)
    # The same once more by hand, so the description and the library have to agree.
    prk = hmac.new(salt, data_key, hashlib.sha256).digest()
    block, by_hand = b"", b""
    for n in (1, 2, 3):
        block = hmac.new(prk, block + info + bytes([n]), hashlib.sha256).digest()
        by_hand += block
    assert derived == by_hand[:71]
    return derived[:32], derived[32:39], derived[39:]


def encrypt(data_key, head, salt, plaintext):
    key, prefix, commitment = keys(data_key, salt, head)
    out = head + commitment
    chunks = [plaintext[at : at + CHUNK] for at in range(0, len(plaintext), CHUNK)] or [b""]
    for number, chunk in enumerate(chunks):
        last = number == len(chunks) - 1
        out += AESGCM(key).encrypt(prefix + struct.pack(">IB", number, last), chunk, None)
    return out


def valid_vectors():
    cases = [
        ("nothing", 0, "my-key", []),
        ("one byte, a context of one pair", 1, "my-key", [["bucket", "backups"]]),
        ("two pairs out of order, text that is not ASCII", 300, "ключ-é", [["tenant", "acme"], ["é", "Ω"], ["a", ""]]),
        ("the shortest key id", 15, "k", []),
        ("the longest key id", 16, "i" * 255, []),
        ("a byte less than a chunk", CHUNK - 1, "my-key", []),
        ("a chunk", CHUNK, "my-key", [["bucket", "backups"]]),
        ("a byte more than a chunk", CHUNK + 1, "my-key", []),
        ("three chunks", 3 * CHUNK, "my-key", []),
        ("three chunks and a part", 3 * CHUNK + 77, "my-key", [["object", "reports/2026.tar"]]),
    ]
    vectors = []
    for name, length, key_id, context in cases:
        seed = SEED + b", " + name.encode()
        data_key, salt = stream(seed + b", data key", 32), stream(seed + b", salt", 32)
        wrapped_key = stream(seed + b", wrapped key", 96)
        head = header(key_id.encode(), wrapped_key, encode_context(context), salt)
        file = encrypt(data_key, head, salt, stream(seed, length))
        vector = {
            "name": name,
            "data_key": data_key.hex(),
            "key_id": key_id,
            "wrapped_key": wrapped_key.hex(),
            "context": context,
            "salt": salt.hex(),
            "plaintext_seed": seed.decode(),
            "plaintext_bytes": length,
            "header": head.hex(),
            "file_bytes": len(file),
            "file_sha256": hashlib.sha256(file).hexdigest(),
        }
        if length <= 300:
            vector["file"] = file.hex()
        vectors.append(vector)
    return vectors


def invalid_vectors():
    """Files that must not open, each one step away from one that does."""
    seed = SEED + b", invalid"
    data_key, salt = stream(seed + b", data key", 32), stream(seed + b", salt", 32)
    wrapped_key, plaintext = stream(seed + b", wrapped key", 96), stream(seed, 40)
    context = encode_context([["a", "1"], ["b", "2"]])
    head = header(b"my-key", wrapped_key, context, salt)
    good = encrypt(data_key, head, salt, plaintext)
    key, prefix, commitment = keys(data_key, salt, head)
    vectors = []

    def add(why, file, data_key=data_key):
        vectors.append({"why": why, "data_key": data_key.hex(), "file": file.hex()})

    def whole(why, head):
        """Encrypted as it should be, but for its header."""
        add(why, encrypt(data_key, head, salt, plaintext))

    def nonce(number, last):
        return prefix + struct.pack(">IB", number, last)

    def changed(at, new):
        return good[:at] + new + good[at + len(new) :]

    add("empty", b"")
    add("magic only", good[:2])
    add("the header without its commitment", head)
    add("no chunk", head + commitment)
    add("a byte short", good[:-1])
    add("a byte long", good + b"\x00")
    whole("magic of a ciphertext", b"\xc7\x4b" + head[2:])
    whole("format 2", head[:2] + b"\x02" + head[3:])
    whole("suite 2", head[:3] + b"\x02" + head[4:])
    whole("chunk size 0", header(b"my-key", wrapped_key, context, salt, chunk=0))
    whole("chunk size 65,535", header(b"my-key", wrapped_key, context, salt, chunk=CHUNK - 1))
    whole("no key id", header(b"", wrapped_key, context, salt))
    whole("key id that is not UTF-8", header(b"my-ke\xff", wrapped_key, context, salt))
    whole("key id with a control character", header(b"my\x1b[2J", wrapped_key, context, salt))
    whole("no wrapped key", header(b"my-key", b"", context, salt))
    whole("no context at all", header(b"my-key", wrapped_key, b"", salt))
    whole("an empty map", header(b"my-key", wrapped_key, b"\x01\x00\x00\x00\x00", salt))
    whole("an opaque context", header(b"my-key", wrapped_key, b"\x02\x00\x00\x00\x01x", salt))
    whole("a context and a byte more", header(b"my-key", wrapped_key, context + b"\x00", salt))
    pair = lambda key, value: struct.pack(">I", len(key)) + key + struct.pack(">I", len(value)) + value
    two = b"\x01\x00\x00\x00\x02"
    whole("pairs out of order", header(b"my-key", wrapped_key, two + pair(b"b", b"2") + pair(b"a", b"1"), salt))
    whole("a key twice", header(b"my-key", wrapped_key, two + pair(b"a", b"1") + pair(b"a", b"1"), salt))
    add("another key id", changed(41, b"my-kex"))
    add("salt changed", changed(8, bytes([good[8] ^ 1])))
    add("wrapped key changed", changed(60, bytes([good[60] ^ 1])))
    add("context changed", changed(head.index(context) + 9, b"c"))
    add("commitment changed", changed(len(head), bytes([commitment[0] ^ 1])))
    add("ciphertext changed", changed(len(head) + 32, bytes([good[len(head) + 32] ^ 1])))
    add("tag changed", good[:-1] + bytes([good[-1] ^ 0x80]))
    add("another data key", good, data_key=stream(seed + b", another", 32))
    add("the data key encrypts the chunk", head + commitment + AESGCM(data_key).encrypt(nonce(0, 1), plaintext, None))
    add("the chunk is not the last one", head + commitment + AESGCM(key).encrypt(nonce(0, 0), plaintext, None))
    add("the chunk has another number", head + commitment + AESGCM(key).encrypt(nonce(1, 1), plaintext, None))
    add("the chunk is bound to the header once more", head + commitment + AESGCM(key).encrypt(nonce(0, 1), plaintext, head))
    return vectors


def main():
    content = {"format": 1, "valid": valid_vectors(), "invalid": invalid_vectors()}
    path = pathlib.Path(__file__).with_name("file-v1.json")
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(f"{path.name}: {len(content['valid'])} valid, {len(content['invalid'])} invalid")


if __name__ == "__main__":
    main()
