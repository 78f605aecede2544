"""Damage done to sound inputs, with their structure in mind; all of it is a function of ``rng``."""

import copy
import io
import json
import random
import re
import struct
import tarfile
import warnings
import zipfile
import zlib

from tests.fuzz_params_file import EDGES, mutate

NAMES = (
    "", " ", ".", "..", "../x", "../../../../tmp/x", "/etc/passwd", "a/../../b", "..\\x", "C:\\x",
    "a\0b", "\ud800", "\ufeff", "a\nb", "a\x85b", "x" * 300, "x" * 5000, "~/x", "con", "a/b", "é",
)  # fmt: skip
NUMBERS = (
    "-1", "0", "1", "-0", "1e999", "nan", "inf", "-inf", "1_0", "0x10", "1.5", "1e3", "١٢",
    "9" * 18, "9" * 19, "9" * 5000, "-" + "9" * 30, "1" + "0" * 400, "0.1e-400", "",
)  # fmt: skip
_VALUES = (
    None, True, False, 0, -1, 1, 2, 300, 2**31, 2**53 + 1, 2**63, 2**64, 10**30, 10**400,
    -(10**400), 0.5, 1e308, float("nan"), float("inf"), [], {}, [[]], [None], {"a": 1}, [0] * 50,
    *NAMES,
)  # fmt: skip
# Written into the JSON as they stand; json.dumps cannot write them.
_RAW = (
    "[" * 100_000, '{"a":' * 20_000, "[" * 500 + "]" * 500, "1e999", "-Infinity", "9" * 5000,
    "1" + "0" * 400, '"\\ud800"', '"\\u0000"', "'a'", "tru", "", '{"a":1,"a":2}', "1.0.0",
)  # fmt: skip


def damaged_bytes(rng: random.Random, seed: bytes) -> bytes:
    """Bytes changed, cut out, doubled, or overwritten with values at the ends of the integers."""
    return mutate(rng, seed)


def damaged_fields(rng: random.Random, seed: bytes, fields) -> bytes:
    """One or two of the 4-byte integers at ``fields`` overwritten."""
    data = bytearray(seed)
    for _ in range(rng.choice((1, 1, 2))):
        at = rng.choice(fields)
        old = int.from_bytes(data[at : at + 4], "little")
        value = rng.choice(
            (*EDGES, old + 1, old - 1, old ^ 1 << rng.randrange(32), old * 2, 1 << 29)
        )
        data[at : at + 4] = (value % 2**32).to_bytes(4, "little")
    return bytes(data)


# ------------------------------------------------------------------------------ text


def damaged_lines(rng: random.Random, seed: bytes) -> bytes:
    """Lines and their fields replaced, doubled, dropped, swapped."""
    if rng.random() < 0.3:
        return mutate(rng, seed)
    lines = seed.decode().split("\n")
    for _ in range(rng.choice((1, 1, 2, 4))):
        at, other = rng.randrange(len(lines)), rng.randrange(len(lines))
        kind = rng.randrange(6)
        if kind == 0:
            lines[at] = lines[other]
        elif kind == 1 and len(lines) > 1:
            del lines[at]
        elif kind == 2:
            lines[at], lines[other] = lines[other], lines[at]
        else:
            fields = re.split(r"([\t ])", lines[at])
            fields[rng.randrange(len(fields))] = rng.choice(NAMES + NUMBERS)
            lines[at] = "".join(fields)
    return rng.choice(("\n", "\n", "\n", "\r\n")).join(lines).encode("utf-8", "surrogatepass")


# ------------------------------------------------------------------------------ JSON


def damaged_json(rng: random.Random, seed: bytes) -> bytes:
    """Values replaced, moved, dropped, renamed; then sometimes bytes, too."""
    if rng.random() < 0.15:
        return mutate(rng, seed)
    root = [json.loads(seed)]  # in a list, so that the outermost value can be replaced, too
    raw = None
    for _ in range(rng.choice((1, 1, 2, 3))):
        places = list(_places(root))
        holder, key = rng.choice(places)
        kind = rng.randrange(8)
        if kind < 4:
            holder[key] = copy.deepcopy(rng.choice(_VALUES))
        elif kind == 4:
            other, at = rng.choice(places)
            holder[key] = copy.deepcopy(other[at])
        elif kind == 5 and holder is not root:
            del holder[key]
        elif kind == 6 and isinstance(holder, dict):
            holder[rng.choice(NAMES)] = holder.pop(key)
        elif kind == 7:
            raw, holder[key] = rng.choice(_RAW), "RAW"
    text = json.dumps(root[0])
    if raw is not None:
        text = text.replace('"RAW"', raw, 1)
    return text.encode() if rng.random() < 0.9 else mutate(rng, text.encode())


def _places(value):
    """``(container, key)`` of every value inside ``value``."""
    pairs = value.items() if isinstance(value, dict) else enumerate(value)
    for key, inner in list(pairs):
        yield value, key
        if isinstance(inner, (dict, list)):
            yield from _places(inner)


def damaged_json_lines(rng: random.Random, seed: bytes) -> bytes:
    """One of the lines damaged as JSON, or the whole as text."""
    lines = seed.split(b"\n")
    at = rng.randrange(len(lines))
    if rng.random() < 0.3 or not lines[at]:
        return mutate(rng, seed)
    lines[at] = damaged_json(rng, lines[at])
    return b"\n".join(lines)


# ------------------------------------------------------------------------------ XML

_LAUGHS = "".join(f'<!ENTITY l{i} "{f"&l{i - 1};" * 10}">' for i in range(1, 10))
_PROLOGS = (
    f'<!DOCTYPE a [<!ENTITY l0 "lol">{_LAUGHS}]>',  # a billion laughs
    '<!DOCTYPE a [<!ENTITY l0 "' + "x" * 50_000 + '">]>',  # quadratic blow-up
    '<!DOCTYPE a [<!ENTITY l0 SYSTEM "file:///etc/passwd">]>',
    '<!DOCTYPE a [<!ENTITY % p SYSTEM "http://127.0.0.1:9/x.dtd"> %p;]>',
    '<!DOCTYPE a SYSTEM "file:///etc/passwd">', '<!DOCTYPE a PUBLIC "-//x" "/etc/passwd" []>',
    "<?pi x?>", "<!-- " + "-" * 3 + "-->", "<!DOCTYPE", "<!ENTITY l0 'x'>",
)  # fmt: skip
_INSIDE = (
    "&l9;", "&l0;" * 2000, "&amp;", "&#0;", "&#x10FFFF;", "&#xD800;", "&#99999999999;", "<![CDATA[",
    "<![CDATA[1]]>", "<a>" * 100_000, "<a>" * 50 + "</a>" * 50, "<a b='" + "x" * 5000 + "'/>",
    "<a b='1' b='2'/>", "<a:b xmlns:a='x'/>", "</annotation>", "\0",
)  # fmt: skip
_ENCODINGS = ("utf-8", "utf-16", "utf-7", "utf-32", "ascii", "cp037", "latin-1", "idna", "punycode",
              "zlib", "rot13", "x" * 50, "raw_unicode_escape", "shift_jis", "undefined",
              "")  # fmt: skip


def damaged_xml(rng: random.Random, seed: bytes) -> bytes:
    """Elements changed, moved, doubled, dropped; entities declared and used; other encodings."""
    if rng.random() < 0.2:
        return mutate(rng, seed)
    parts = re.split(r"(<[^>]*>)", seed.decode())
    for _ in range(rng.choice((1, 1, 2, 4))):
        at, other = rng.randrange(len(parts)), rng.randrange(len(parts))
        kind = rng.randrange(9)
        if kind < 3:
            texts = [i for i, part in enumerate(parts) if part.strip() and part[0] != "<"]
            parts[rng.choice(texts or [at])] = rng.choice(NAMES + NUMBERS).replace("\ud800", "?")
        elif kind == 3:
            parts[at] = rng.choice(_INSIDE)
        elif kind == 4:
            parts[at] = parts[other]
        elif kind == 5:
            parts[min(at, other) : max(at, other)] = []
        elif kind == 6:
            parts[at:at] = parts[min(at, other) : max(at, other)]
        elif kind == 7:
            parts[:0] = [rng.choice(_PROLOGS)]
        else:
            parts[:0] = [f'<?xml version="1.0" encoding="{rng.choice(_ENCODINGS)}"?>']
        parts = parts or [""]
    encoding = rng.choice(("utf-8",) * 8 + ("utf-16", "utf-32"))
    return "".join(parts).encode(encoding, "replace")


# ------------------------------------------------------------------------------ images


def damaged_image(rng: random.Random, seed: bytes) -> bytes:
    """Bytes, and in a PNG half of the time checksums that are right again."""
    data = mutate(rng, seed)
    return _with_checksums(data) if seed.startswith(b"\x89PNG") and rng.random() < 0.5 else data


def _with_checksums(png: bytes) -> bytes:
    out, at = bytearray(png), 8
    while at + 12 <= len(out):
        end = at + 8 + int.from_bytes(out[at : at + 4], "big")
        if end + 4 > len(out):
            break
        out[end : end + 4] = zlib.crc32(out[at + 4 : end]).to_bytes(4, "big")
        at = end + 4
    return bytes(out)


# ------------------------------------------------------------------------------ archives

_MEMBERS = (
    *NAMES, "VOCdevkit", "VOCdevkit/VOC2007", "VOCdevkit/VOC2007/../../x", "VOCdevkit/VOC2008/x",
    "VOCdevkit/VOC2007/JPEGImages/a.jpg", "./VOCdevkit/VOC2007/Annotations/x", "VOCdevkit//VOC2007",
    "VOCdevkit/VOC2007/a\\..\\b", "/VOCdevkit/VOC2007/x", "VOCdevkit/VOC2007/JPEGImages/a.jpg/b",
    "VOCdevkit/VOC2007/" + "d/" * 200, "VOCdevkit/VOC2007/" + "n" * 300,
)  # fmt: skip
_TYPES = (tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE,
          tarfile.BLKTYPE, tarfile.FIFOTYPE, tarfile.CONTTYPE, tarfile.GNUTYPE_SPARSE,
          b"Z")  # fmt: skip
_PAX = (
    {"path": "../x"}, {"path": "/x"}, {"linkpath": "../x"}, {"size": "-1"}, {"size": "9" * 30},
    {"size": "x"}, {"GNU.sparse.major": "1", "GNU.sparse.minor": "0"},
    {"GNU.sparse.size": "9" * 20}, {"GNU.sparse.map": "0,1,x"}, {"GNU.sparse.name": "../x"},
    {"mtime": "nan"}, {"uid": "x"},
    {"hdrcharset": "BINARY", "path": "\udcff"}, {"comment": "x" * 5000},
)  # fmt: skip
_HEADER_FIELDS = ((0, 100), (124, 12), (136, 12), (156, 1), (157, 100), (257, 8), (345, 155))


def damaged_tar(rng: random.Random, seed: bytes) -> bytes:
    """Hostile members put in, or header fields overwritten and the checksum made right again."""
    kind = rng.randrange(3)
    if kind == 0:
        return mutate(rng, seed)
    if kind == 1:
        return _with_member(rng, seed)
    data = bytearray(seed)
    headers = [at for at in range(0, len(data), 512) if data[at + 257 : at + 262] == b"ustar"]
    at = rng.choice(headers)
    for _ in range(rng.choice((1, 1, 2))):
        offset, size = rng.choice(_HEADER_FIELDS)
        value = rng.choice((
            rng.randbytes(size), b"\xff" * size, b"\x80" + rng.randbytes(size), b"-1", b"7" * size,
            b"\0" * size, rng.choice(_MEMBERS).encode("utf-8", "replace"), rng.choice(_TYPES),
            b"\xff" * (size - 2) + b"\xfe\0", b"xgLKSV"[rng.randrange(6) :][:1],
        ))  # fmt: skip
        data[at + offset : at + offset + size] = value[:size].ljust(size, b"\0")
    head = data[at : at + 512]
    head[148:156] = b" " * 8
    data[at + 148 : at + 156] = b"%06o\0 " % sum(head)
    return bytes(data)


def _with_member(rng: random.Random, seed: bytes) -> bytes:
    out = io.BytesIO()
    form = rng.choice((tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT))
    with tarfile.open(fileobj=out, mode="w", format=form) as archive:
        for _ in range(rng.choice((1, 1, 3))):
            member = tarfile.TarInfo(rng.choice(_MEMBERS))
            member.type = rng.choice(_TYPES)
            member.linkname = rng.choice(_MEMBERS)
            member.size = rng.choice((0, 0, 3, 512))
            if form == tarfile.PAX_FORMAT and rng.random() < 0.5:
                member.pax_headers = rng.choice(_PAX)
            try:
                archive.addfile(member, io.BytesIO(b"x" * 512))
            except (ValueError, UnicodeError):  # what this form of tar cannot say
                continue
    body = out.getvalue().rstrip(b"\0")
    body += bytes(-len(body) % 512)
    return body + seed if rng.random() < 0.5 else seed.rstrip(b"\0") + body + bytes(1024)


def damaged_zip(rng: random.Random, seed: bytes) -> bytes:
    """The archive itself, or one of its members with sums that are right again."""
    if rng.random() < 0.4:
        return mutate(rng, seed)
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(seed)) as source, zipfile.ZipFile(out, "w") as target:
        members = source.infolist()
        chosen = rng.randrange(len(members))
        for number, member in enumerate(members):
            name, data = member.filename, source.read(member)
            if number == chosen:
                kind = rng.randrange(4)
                if kind == 0:
                    continue
                if kind == 1:
                    name = rng.choice(NAMES).encode("utf-8", "replace").decode()
                else:
                    data = mutate(rng, data)
            how = rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))
            with warnings.catch_warnings():  # of two members with one name
                warnings.simplefilter("ignore")
                target.writestr(zipfile.ZipInfo(name), data, how)
        if rng.random() < 0.02:
            target.writestr(zipfile.ZipInfo("bomb.npy"), bytes(30_000_000), zipfile.ZIP_DEFLATED)
    return out.getvalue()


def damaged_safetensors(rng: random.Random, seed: bytes) -> bytes:
    """The bytes, or the JSON header with a length that is right again."""
    if rng.random() < 0.4:
        return mutate(rng, seed)
    (length,) = struct.unpack_from("<Q", seed)
    header = damaged_json(rng, seed[8 : 8 + length])
    return struct.pack("<Q", len(header)) + header + seed[8 + length :]
