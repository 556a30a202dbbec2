# cython: boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""128-bit keyed hashes of rows, over an encoding that does not change when a column's type is widened.

Row hash = SipHash-2-4 with 128 bits of output (Aumasson and Bernstein, "SipHash: a fast short-input PRF",
INDOCRYPT 2012, and its authors' 128-bit variant) of the cells' encodings, one after the other:

    null         00                                                  of every type
    bool         01  1 byte
    integer      02  8 bytes, two's complement                       int8..int64, uint8..uint64 below 2^63
                 03  8 bytes                                         uint64 from 2^63 on
    float        04  8 bytes, IEEE double                            half, float, double; -0.0 as 0.0; one NaN
    decimal      05  sign 1, scale 2, length 1, magnitude            any width, precision and scale; see below
    timestamp    06  seconds since 1970 8 (floor), nanoseconds 4     any unit, without time zone
    instant      07  the same, in UTC                                any unit, any time zone
    date         08  8 bytes, days since 1970 (floor)                date32, date64
    time         09  8 bytes, nanoseconds since midnight             time32, time64
    string       0a  length, UTF-8 bytes                             string, large_string, string_view
    binary       0b  length, bytes                                   binary, large_, _view, fixed_size_binary
    duration     0c  seconds 8 (floor), nanoseconds 4                any unit
    interval     0d  months 4, days 4, nanoseconds 8                 any of the three
    list         0e  length, then the items                          list, large_list, fixed_size_list, list_view
    struct       0f  number of fields, then the fields by position
    map          10  length, then the entries as structs, in stored order

Numbers are little-endian, lengths are LEB128. A decimal is its unscaled value without trailing zeros: 1.00, 1.0 and 1
are (1, scale 0), 100 is (1, scale -2), zero has scale 0; the magnitude takes as few bytes as it needs. Dictionary and
run-end encoding are looked through; extension types hash as their storage. Each cell tells where it ends, so
different rows have different encodings.

The input arrives through the Arrow C data interface, so the build needs no header but Python's.
"""

from cpython.pycapsule cimport PyCapsule_GetPointer
from libc.math cimport ldexp
from libc.stdint cimport int8_t, int16_t, int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memcpy, memset

from onefold.kernel.siphash cimport siphash_2_4_128

import numpy as np
import pyarrow as pa

from onefold.errors import NotSupported

cdef extern from *:
    """
    typedef struct OfSchema {
        const char *format; const char *name; const char *metadata; int64_t flags; int64_t n_children;
        struct OfSchema **children; struct OfSchema *dictionary; void (*release)(struct OfSchema *); void *private_data;
    } OfSchema;
    typedef struct OfArray {
        int64_t length; int64_t null_count; int64_t offset; int64_t n_buffers; int64_t n_children;
        const void **buffers; struct OfArray **children; struct OfArray *dictionary;
        void (*release)(struct OfArray *); void *private_data;
    } OfArray;
    """
    ctypedef struct OfSchema:
        const char *format
        int64_t n_children
        OfSchema **children
        OfSchema *dictionary

    ctypedef struct OfArray:
        int64_t length
        int64_t offset
        int64_t n_buffers
        int64_t n_children
        const void **buffers
        OfArray **children
        OfArray *dictionary

    ctypedef unsigned long long uint128_t "unsigned __int128"


def hash_rows(columns, bytes key):
    """The keyed 128-bit hash of every row.

    Args:
        columns: a RecordBatch, a Table, or a non-empty list of arrays (chunked ones too) of equal length.
        key: 16 bytes.
    Returns: a numpy array (rows, 2) of uint64; column 0 is the low half.
    Raises: NotSupported for unions and for types unknown to this version.
    """
    cdef uint64_t k0, k1
    _split_key(key, &k0, &k1)
    if isinstance(columns, pa.RecordBatch):
        batches = [columns]
    else:
        if not isinstance(columns, pa.Table):
            columns = _name(list(columns))
        batches = [columns] if isinstance(columns, pa.RecordBatch) else columns.to_batches()
    rows = sum(batch.num_rows for batch in batches)
    result = np.empty((rows, 2), dtype=np.uint64)
    start = 0
    for batch in batches:
        _hash_batch(batch, k0, k1, result[start : start + batch.num_rows])
        start += batch.num_rows
    return result


def _name(list columns):
    """Columns without names as a RecordBatch, or as a Table when one of them has chunks."""
    if not columns:
        raise ValueError("hash_rows needs at least one column")
    names = [str(i) for i in range(len(columns))]
    if all(isinstance(column, pa.Array) for column in columns):
        return pa.RecordBatch.from_arrays(columns, names=names)
    return pa.Table.from_arrays(columns, names=names)


def digest(const uint64_t[:, ::1] hashes):
    """The sum of the row hashes modulo 2^128: the same for every order of the rows. Adding rows adds digests."""
    cdef uint64_t low = 0, high = 0, part
    cdef Py_ssize_t i
    with nogil:
        for i in range(hashes.shape[0]):
            part = hashes[i, 0]
            low += part
            high += hashes[i, 1] + (low < part)
    return (int(high) << 64) | int(low)


def siphash128(bytes message, bytes key):
    """SipHash-2-4 with 128 bits of output of one message: 16 bytes."""
    cdef uint64_t k0, k1
    cdef uint64_t out[2]
    _split_key(key, &k0, &k1)
    siphash_2_4_128(<const uint8_t *> message, len(message), k0, k1, out)
    return int(out[0]).to_bytes(8, "little") + int(out[1]).to_bytes(8, "little")


cdef int _split_key(bytes key, uint64_t *k0, uint64_t *k1) except -1:
    if len(key) != 16:
        raise ValueError(f"a hash key has 16 bytes, not {len(key)}")
    k0[0] = int.from_bytes(key[:8], "little")
    k1[0] = int.from_bytes(key[8:], "little")
    return 0


# -------------------------------------------------------------------------------------------- columns, seen from C


cdef enum Kind:
    NULLS, BOOL, INT8, INT16, INT32, INT64, UINT8, UINT16, UINT32, UINT64, HALF, FLOAT, DOUBLE, DECIMAL
    STAMP, DATE32, DATE64, TIME32, TIME64, TEXT32, TEXT64, TEXTVIEW, FIXED, MONTHS, DAYTIME, MONTHDAYNANO
    LIST32, LIST64, VIEW32, VIEW64, FIXEDLIST, STRUCT, DICTIONARY, RUNENDS

cdef struct Column:
    Kind kind
    uint8_t tag
    int64_t width           # bytes of a fixed-width value, or items of a fixed-size list
    int64_t per_second      # of temporal units
    int scale
    int64_t offset
    int64_t length
    const uint8_t *validity
    const void *first       # values, or offsets into `second`
    const void *second
    const void **variadic   # of view types
    int64_t n_children
    Column *children

cdef struct Buffer:
    uint8_t *bytes
    size_t length
    size_t capacity
    bint has_failed


def _hash_batch(batch, uint64_t k0, uint64_t k1, uint64_t[:, ::1] out):
    schema_capsule, array_capsule = batch.__arrow_c_array__()
    cdef OfSchema *schema = <OfSchema *> PyCapsule_GetPointer(schema_capsule, "arrow_schema")
    cdef OfArray *array = <OfArray *> PyCapsule_GetPointer(array_capsule, "arrow_array")
    cdef Column root
    cdef Buffer buffer
    cdef int64_t i, c
    memset(&root, 0, sizeof(root))
    buffer.length = 0
    buffer.has_failed = False
    buffer.capacity = 4096
    buffer.bytes = <uint8_t *> malloc(buffer.capacity)
    try:
        if buffer.bytes == NULL:
            raise MemoryError
        _describe(&root, schema, array)
        with nogil:
            for i in range(array.length):
                buffer.length = 0
                for c in range(root.n_children):
                    _encode(&root.children[c], root.offset + i, &buffer)
                if buffer.has_failed:
                    break
                siphash_2_4_128(buffer.bytes, buffer.length, k0, k1, &out[i, 0])
        if buffer.has_failed:
            raise MemoryError
    finally:
        free(buffer.bytes)
        _free_children(&root)


cdef void _free_children(Column *column) noexcept:
    cdef int64_t i
    if column.children != NULL:
        for i in range(column.n_children):
            _free_children(&column.children[i])
        free(column.children)
        column.children = NULL


cdef int _allot_children(Column *column, int64_t count) except -1:
    column.children = <Column *> calloc(count + 1, sizeof(Column))
    if column.children == NULL:
        raise MemoryError
    column.n_children = count
    return 0


cdef int _describe(Column *column, OfSchema *schema, OfArray *array) except -1:
    """Fill in `column` from Arrow's C structures, children included."""
    cdef int64_t i
    column.offset = array.offset
    column.length = array.length
    if schema.dictionary != NULL:
        column.kind = DICTIONARY
        column.validity = <const uint8_t *> array.buffers[0]
        _allot_children(column, 2)
        _describe_plain(&column.children[0], schema.format, array)
        column.children[0].offset = 0
        _describe(&column.children[1], schema.dictionary, array.dictionary)
        return 0
    _describe_plain(column, schema.format, array)
    if schema.n_children:
        _allot_children(column, schema.n_children)
        for i in range(schema.n_children):
            _describe(&column.children[i], schema.children[i], array.children[i])
    return 0


cdef int _describe_plain(Column *column, const char *form, OfArray *array) except -1:
    """Kind, tag and buffers of one array, from the format string of Arrow's C data interface."""
    text = (<bytes> form).decode()
    letter = _FIXED_WIDTH.get(text)
    if letter is not None:
        column.kind, column.tag, column.width = letter
    elif text[0] == "d":
        parts = [int(part) for part in text[2:].split(",")]
        column.kind, column.tag = DECIMAL, 0x05
        column.scale = parts[1]
        column.width = (parts[2] if len(parts) > 2 else 128) // 8
    elif text[0] == "w":
        column.kind, column.tag, column.width = FIXED, 0x0b, int(text[2:])
    elif text[:2] == "ts" or text[:2] == "tD":
        column.kind, column.tag = STAMP, 0x0c if text[1] == "D" else (0x06 if text[4:] == "" else 0x07)
        column.per_second = _PER_SECOND[text[2:3]]
    elif text in ("tts", "ttm", "ttu", "ttn"):
        column.kind, column.tag = TIME32 if text[2] in "sm" else TIME64, 0x09
        column.per_second = _PER_SECOND[text[2:3]]
    elif text[:3] == "+w:":
        column.kind, column.tag, column.width = FIXEDLIST, 0x0e, int(text[3:])
    else:
        raise NotSupported(
            f"Rows with a column of this Arrow type cannot be hashed: {text}.",
            next_step="Leave this column out, or turn it into one of another type with select.",
        )
    column.validity = NULL
    if column.kind not in (NULLS, RUNENDS) and array.n_buffers > 0:
        column.validity = <const uint8_t *> array.buffers[0]
    if array.n_buffers > 1:
        column.first = array.buffers[1]
    if array.n_buffers > 2:
        column.second = array.buffers[2]
        column.variadic = array.buffers + 2
    return 0


_PER_SECOND = {"s": 1, "m": 1_000, "u": 1_000_000, "n": 1_000_000_000}

_FIXED_WIDTH = {
    "n": (NULLS, 0x00, 0), "b": (BOOL, 0x01, 0),
    "c": (INT8, 0x02, 1), "s": (INT16, 0x02, 2), "i": (INT32, 0x02, 4), "l": (INT64, 0x02, 8),
    "C": (UINT8, 0x02, 1), "S": (UINT16, 0x02, 2), "I": (UINT32, 0x02, 4), "L": (UINT64, 0x02, 8),
    "e": (HALF, 0x04, 2), "f": (FLOAT, 0x04, 4), "g": (DOUBLE, 0x04, 8),
    "tdD": (DATE32, 0x08, 4), "tdm": (DATE64, 0x08, 8),
    "u": (TEXT32, 0x0a, 0), "U": (TEXT64, 0x0a, 0), "vu": (TEXTVIEW, 0x0a, 16),
    "z": (TEXT32, 0x0b, 0), "Z": (TEXT64, 0x0b, 0), "vz": (TEXTVIEW, 0x0b, 16),
    "tiM": (MONTHS, 0x0d, 4), "tiD": (DAYTIME, 0x0d, 8), "tin": (MONTHDAYNANO, 0x0d, 16),
    "+l": (LIST32, 0x0e, 0), "+L": (LIST64, 0x0e, 0), "+vl": (VIEW32, 0x0e, 0), "+vL": (VIEW64, 0x0e, 0),
    "+s": (STRUCT, 0x0f, 0), "+m": (LIST32, 0x10, 0), "+r": (RUNENDS, 0x00, 0),
}


# --------------------------------------------------------------------------------------------------------- encoding


cdef inline bint _reserve(Buffer *buffer, size_t more) noexcept nogil:
    cdef uint8_t *grown
    cdef size_t capacity
    if buffer.has_failed:
        return False
    if buffer.length + more > buffer.capacity:
        capacity = 2 * (buffer.length + more)
        grown = <uint8_t *> realloc(buffer.bytes, capacity)
        if grown == NULL:
            buffer.has_failed = True
            return False
        buffer.bytes = grown
        buffer.capacity = capacity
    return True


cdef inline void _put_byte(Buffer *buffer, uint8_t value) noexcept nogil:
    if _reserve(buffer, 1):
        buffer.bytes[buffer.length] = value
        buffer.length += 1


cdef inline void _put_tagged(Buffer *buffer, uint8_t tag, uint64_t value) noexcept nogil:
    if _reserve(buffer, 9):
        buffer.bytes[buffer.length] = tag
        memcpy(buffer.bytes + buffer.length + 1, &value, 8)
        buffer.length += 9


cdef inline void _put_length(Buffer *buffer, uint8_t tag, uint64_t length) noexcept nogil:
    if _reserve(buffer, 11):
        buffer.bytes[buffer.length] = tag
        buffer.length += 1
        while length > 0x7f:
            buffer.bytes[buffer.length] = <uint8_t> (length | 0x80)
            buffer.length += 1
            length >>= 7
        buffer.bytes[buffer.length] = <uint8_t> length
        buffer.length += 1


cdef inline void _put_bytes(Buffer *buffer, uint8_t tag, const uint8_t *bytes, uint64_t length) noexcept nogil:
    _put_length(buffer, tag, length)
    if length and _reserve(buffer, length):
        memcpy(buffer.bytes + buffer.length, bytes, length)
        buffer.length += length


cdef inline void _put_double(Buffer *buffer, double value) noexcept nogil:
    cdef uint64_t bits
    if value != value:
        bits = <uint64_t> 0x7ff8 << 48
    elif value == 0.0:
        bits = 0
    else:
        memcpy(&bits, &value, 8)
    _put_tagged(buffer, 0x04, bits)


cdef inline double _from_half(uint16_t half) noexcept nogil:
    cdef int exponent = (half >> 10) & 0x1f
    cdef double fraction = half & 0x3ff
    cdef double magnitude
    if exponent == 0:
        magnitude = ldexp(fraction, -24)
    elif exponent == 31:
        magnitude = ldexp(1.0, 2000) if fraction == 0 else ldexp(1.0, 2000) - ldexp(1.0, 2000)
    else:
        magnitude = ldexp(fraction + 1024, exponent - 25)
    return -magnitude if half >> 15 else magnitude


cdef inline void _put_seconds(Buffer *buffer, uint8_t tag, int64_t value, int64_t per_second) noexcept nogil:
    """Seconds rounded down and nanoseconds: every unit's whole range fits without overflow."""
    cdef int64_t seconds = value // per_second
    cdef int64_t rest = value - seconds * per_second
    cdef uint32_t nanoseconds
    if rest < 0:
        seconds -= 1
        rest += per_second
    nanoseconds = <uint32_t> (rest * (1_000_000_000 // per_second))
    _put_tagged(buffer, tag, <uint64_t> seconds)
    if _reserve(buffer, 4):
        memcpy(buffer.bytes + buffer.length, &nanoseconds, 4)
        buffer.length += 4


cdef void _put_interval(Buffer *buffer, int32_t months, int32_t days, int64_t nanoseconds) noexcept nogil:
    _put_tagged(buffer, 0x0d, (<uint64_t> <uint32_t> days << 32) | <uint32_t> months)
    if _reserve(buffer, 8):
        memcpy(buffer.bytes + buffer.length, &nanoseconds, 8)
        buffer.length += 8


cdef uint32_t _divide_by_ten(const uint64_t *limbs, uint64_t *quotient) noexcept nogil:
    """Long division of a 256-bit number; returns the remainder."""
    cdef uint128_t rest = 0
    cdef int i
    for i in range(3, -1, -1):
        rest = (rest << 64) | limbs[i]
        quotient[i] = <uint64_t> (rest // 10)
        rest = rest % 10
    return <uint32_t> rest


cdef void _put_decimal(Buffer *buffer, const uint8_t *bytes, int64_t width, int scale) noexcept nogil:
    cdef uint64_t limbs[4]
    cdef uint64_t quotient[4]
    cdef bint is_negative = bytes[width - 1] >> 7
    cdef int i, size
    cdef int16_t stripped = <int16_t> scale
    cdef uint64_t carry = 1
    memset(limbs, 0xff if is_negative else 0, 32)
    memcpy(limbs, bytes, width)
    if is_negative:
        for i in range(4):
            limbs[i] = ~limbs[i] + carry
            carry = carry and limbs[i] == 0
    while (limbs[1] | limbs[2] | limbs[3]) and not limbs[0] & 1 and _divide_by_ten(limbs, quotient) == 0:
        memcpy(limbs, quotient, 32)
        stripped -= 1
    if not (limbs[1] | limbs[2] | limbs[3]):
        while limbs[0] and limbs[0] % 10 == 0:
            limbs[0] //= 10
            stripped -= 1
        if limbs[0] == 0:
            stripped = 0
    size = 32
    while size and (<uint8_t *> limbs)[size - 1] == 0:
        size -= 1
    if _reserve(buffer, 5 + size):
        buffer.bytes[buffer.length] = 0x05
        buffer.bytes[buffer.length + 1] = is_negative
        memcpy(buffer.bytes + buffer.length + 2, &stripped, 2)
        buffer.bytes[buffer.length + 4] = <uint8_t> size
        memcpy(buffer.bytes + buffer.length + 5, limbs, size)
        buffer.length += 5 + size


cdef int64_t _run_of(const Column *ends, int64_t at) noexcept nogil:
    """The first run that ends after the logical position `at`."""
    cdef int64_t low = 0, high = ends.length, middle, end
    while low < high:
        middle = (low + high) // 2
        end = _integer(ends, ends.offset + middle)
        if end > at:
            high = middle
        else:
            low = middle + 1
    return low


cdef inline int64_t _integer(const Column *column, int64_t at) noexcept nogil:
    if column.kind == INT32:
        return (<const int32_t *> column.first)[at]
    if column.kind == INT64 or column.kind == UINT64:
        return (<const int64_t *> column.first)[at]
    if column.kind == INT8:
        return (<const int8_t *> column.first)[at]
    if column.kind == INT16:
        return (<const int16_t *> column.first)[at]
    if column.kind == UINT8:
        return (<const uint8_t *> column.first)[at]
    if column.kind == UINT16:
        return (<const uint16_t *> column.first)[at]
    return (<const uint32_t *> column.first)[at]


cdef void _encode(const Column *column, int64_t index, Buffer *buffer) noexcept nogil:
    """Append the cell at `index` (before the column's own offset) to the buffer."""
    cdef int64_t at = column.offset + index
    cdef int64_t start, value
    cdef const uint8_t *view
    cdef Kind kind = column.kind
    if kind == NULLS or (column.validity != NULL and not (column.validity[at >> 3] >> (at & 7)) & 1):
        _put_byte(buffer, 0x00)
    elif kind == TEXT32:
        start = (<const int32_t *> column.first)[at]
        value = (<const int32_t *> column.first)[at + 1]
        _put_bytes(buffer, column.tag, <const uint8_t *> column.second + start, value - start)
    elif INT8 <= kind <= UINT64:
        value = _integer(column, at)
        _put_tagged(buffer, 0x03 if kind == UINT64 and value < 0 else 0x02, <uint64_t> value)
    elif kind == STAMP:
        _put_seconds(buffer, column.tag, (<const int64_t *> column.first)[at], column.per_second)
    elif kind == DECIMAL:
        _put_decimal(buffer, <const uint8_t *> column.first + at * column.width, column.width, column.scale)
    elif kind == DOUBLE:
        _put_double(buffer, (<const double *> column.first)[at])
    elif kind == TEXT64:
        start = (<const int64_t *> column.first)[at]
        value = (<const int64_t *> column.first)[at + 1]
        _put_bytes(buffer, column.tag, <const uint8_t *> column.second + start, value - start)
    elif kind == TEXTVIEW:
        view = <const uint8_t *> column.first + 16 * at
        value = (<const int32_t *> view)[0]
        if value <= 12:
            view += 4
        else:
            view = <const uint8_t *> column.variadic[(<const int32_t *> view)[2]] + (<const int32_t *> view)[3]
        _put_bytes(buffer, column.tag, view, value)
    elif kind >= LIST32:
        _encode_nested(column, at, buffer)
    else:
        _encode_rare(column, at, buffer)


cdef void _encode_rare(const Column *column, int64_t at, Buffer *buffer) noexcept nogil:
    cdef Kind kind = column.kind
    cdef int64_t value
    cdef const int32_t *parts
    if kind == BOOL:
        _put_byte(buffer, 0x01)
        _put_byte(buffer, ((<const uint8_t *> column.first)[at >> 3] >> (at & 7)) & 1)
    elif kind == HALF:
        _put_double(buffer, _from_half((<const uint16_t *> column.first)[at]))
    elif kind == FLOAT:
        _put_double(buffer, (<const float *> column.first)[at])
    elif kind == DATE32:
        _put_tagged(buffer, column.tag, <uint64_t> <int64_t> (<const int32_t *> column.first)[at])
    elif kind == DATE64:
        value = (<const int64_t *> column.first)[at]
        _put_tagged(buffer, column.tag, <uint64_t> (value // 86_400_000 - (value % 86_400_000 < 0)))
    elif kind == TIME32:
        value = (<const int32_t *> column.first)[at]
        _put_tagged(buffer, column.tag, <uint64_t> (value * (1_000_000_000 // column.per_second)))
    elif kind == TIME64:
        value = (<const int64_t *> column.first)[at]
        _put_tagged(buffer, column.tag, <uint64_t> value * <uint64_t> (1_000_000_000 // column.per_second))
    elif kind == FIXED:
        _put_bytes(buffer, column.tag, <const uint8_t *> column.first + at * column.width, column.width)
    elif kind == MONTHS:
        _put_interval(buffer, (<const int32_t *> column.first)[at], 0, 0)
    else:
        parts = <const int32_t *> (<const uint8_t *> column.first + at * column.width)
        if kind == DAYTIME:
            _put_interval(buffer, 0, parts[0], <int64_t> parts[1] * 1_000_000)
        else:
            memcpy(&value, parts + 2, 8)
            _put_interval(buffer, parts[0], parts[1], value)


cdef void _encode_nested(const Column *column, int64_t at, Buffer *buffer) noexcept nogil:
    cdef Kind kind = column.kind
    cdef int64_t start, count, i
    if kind == DICTIONARY:
        _encode(&column.children[1], _integer(&column.children[0], at), buffer)
        return
    if kind == RUNENDS:
        _encode(&column.children[1], _run_of(&column.children[0], at), buffer)
        return
    if kind == STRUCT:
        _put_length(buffer, column.tag, column.n_children)
        for i in range(column.n_children):
            _encode(&column.children[i], at, buffer)
        return
    if kind == LIST32:
        start = (<const int32_t *> column.first)[at]
        count = (<const int32_t *> column.first)[at + 1] - start
    elif kind == LIST64:
        start = (<const int64_t *> column.first)[at]
        count = (<const int64_t *> column.first)[at + 1] - start
    elif kind == VIEW32:
        start = (<const int32_t *> column.first)[at]
        count = (<const int32_t *> column.second)[at]
    elif kind == VIEW64:
        start = (<const int64_t *> column.first)[at]
        count = (<const int64_t *> column.second)[at]
    else:
        start = at * column.width
        count = column.width
    _put_length(buffer, column.tag, count)
    for i in range(count):
        _encode(&column.children[0], start + i, buffer)
