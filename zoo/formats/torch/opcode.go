package torch

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/big"
	"strconv"
)

// opcode is one instruction of the pickle machine.
type opcode struct {
	name string
	run  func(*machine) error
}

// opcodes is the instruction set of protocols 0 to 5 (Python's pickletools).
// Left out, and so refused: EXT1, EXT2, EXT4 (a registry of the process),
// NEXT_BUFFER and READONLY_BUFFER (data outside of the file), PERSID (text ids,
// which torch does not write).
var opcodes = [256]opcode{
	'(':  {"MARK", (*machine).mark},
	'0':  {"POP", opPop},
	'1':  {"POP_MARK", func(m *machine) error { _, err := m.popMark(); return err }},
	'2':  {"DUP", opDup},
	'F':  {"FLOAT", opFloatText},
	'G':  {"BINFLOAT", opBinFloat},
	'I':  {"INT", opIntText},
	'L':  {"LONG", opLongText},
	'J':  {"BININT", opBinInt},
	'K':  {"BININT1", unsigned(1)},
	'M':  {"BININT2", unsigned(2)},
	0x8a: {"LONG1", long(1)},
	0x8b: {"LONG4", long(4)},
	'N':  {"NONE", constant(nil)},
	0x88: {"NEWTRUE", constant(true)},
	0x89: {"NEWFALSE", constant(false)},

	'S':  {"STRING", opStringText},
	'V':  {"UNICODE", opUnicodeText},
	'T':  {"BINSTRING", str(4)},
	'U':  {"SHORT_BINSTRING", str(1)},
	'X':  {"BINUNICODE", str(4)},
	0x8c: {"SHORT_BINUNICODE", str(1)},
	0x8d: {"BINUNICODE8", str(8)},
	'B':  {"BINBYTES", rawBytes(4)},
	'C':  {"SHORT_BINBYTES", rawBytes(1)},
	0x8e: {"BINBYTES8", rawBytes(8)},
	0x96: {"BYTEARRAY8", opByteArray},

	']':  {"EMPTY_LIST", func(m *machine) error { return m.push(&List{}) }},
	'l':  {"LIST", opList},
	'a':  {"APPEND", opAppend},
	'e':  {"APPENDS", opAppends},
	')':  {"EMPTY_TUPLE", func(m *machine) error { return m.push(&Tuple{}) }},
	't':  {"TUPLE", opTuple},
	0x85: {"TUPLE1", tuple(1)},
	0x86: {"TUPLE2", tuple(2)},
	0x87: {"TUPLE3", tuple(3)},
	'}':  {"EMPTY_DICT", func(m *machine) error { return m.push(&Dict{}) }},
	'd':  {"DICT", opDict},
	's':  {"SETITEM", opSetItem},
	'u':  {"SETITEMS", opSetItems},
	0x8f: {"EMPTY_SET", func(m *machine) error { return m.push(&Set{}) }},
	0x90: {"ADDITEMS", opAddItems},
	0x91: {"FROZENSET", opFrozenSet},

	'p':  {"PUT", opPutText},
	'q':  {"BINPUT", indexed(1, (*machine).put)},
	'r':  {"LONG_BINPUT", indexed(4, (*machine).put)},
	0x94: {"MEMOIZE", func(m *machine) error { return m.put(uint64(len(m.memo))) }},
	'g':  {"GET", opGetText},
	'h':  {"BINGET", indexed(1, (*machine).get)},
	'j':  {"LONG_BINGET", indexed(4, (*machine).get)},

	'c':  {"GLOBAL", opGlobal},
	0x93: {"STACK_GLOBAL", opStackGlobal},
	'R':  {"REDUCE", opReduce},
	'b':  {"BUILD", opBuild},
	'i':  {"INST", opInst},
	'o':  {"OBJ", opObj},
	0x81: {"NEWOBJ", opNewObj},
	0x92: {"NEWOBJ_EX", opNewObjEx},
	'Q':  {"BINPERSID", opPersID},
	0x80: {"PROTO", opProto},
	0x95: {"FRAME", func(m *machine) error { _, err := m.src.take(8); return err }},
}

func opPop(m *machine) error {
	// Python lets POP remove a mark when nothing lies above it.
	if n := len(m.marks); n > 0 && len(m.stack) == m.floor() {
		m.marks = m.marks[:n-1]
		return nil
	}
	_, err := m.pop()
	return err
}

func opDup(m *machine) error {
	v, err := m.top()
	if err != nil {
		return err
	}
	return m.push(v)
}

func opProto(m *machine) error {
	c, err := m.src.byte()
	if err != nil {
		return err
	}
	if c > 5 {
		return fmt.Errorf("protocol %d is unknown", c)
	}
	m.proto = int(c)
	return nil
}

func constant(v Value) func(*machine) error {
	return func(m *machine) error { return m.push(v) }
}

func unsigned(n uint64) func(*machine) error {
	return func(m *machine) error {
		v, err := m.src.little(n)
		if err != nil {
			return err
		}
		return m.push(int64(v))
	}
}

func opBinInt(m *machine) error {
	v, err := m.src.little(4)
	if err != nil {
		return err
	}
	return m.push(int64(int32(v)))
}

func opBinFloat(m *machine) error {
	b, err := m.src.take(8)
	if err != nil {
		return err
	}
	return m.push(math.Float64frombits(binary.BigEndian.Uint64(b)))
}

// long reads a two's complement integer whose length takes n bytes.
func long(n uint64) func(*machine) error {
	return func(m *machine) error {
		size, err := m.src.little(n)
		if err != nil {
			return err
		}
		b, err := m.src.take(size)
		if err != nil {
			return err
		}
		return m.push(twosComplement(b))
	}
}

// twosComplement decodes a little-endian signed integer of any length.
func twosComplement(b []byte) Value {
	if len(b) <= 8 {
		v := uint64(0)
		for i, c := range b {
			v |= uint64(c) << (8 * i)
		}
		if n := len(b); n > 0 && n < 8 && b[n-1]&0x80 != 0 {
			v |= ^uint64(0) << (8 * n)
		}
		return int64(v)
	}
	be := make([]byte, len(b))
	for i, c := range b {
		be[len(b)-1-i] = c
	}
	z := new(big.Int).SetBytes(be)
	if b[len(b)-1]&0x80 != 0 {
		z.Sub(z, new(big.Int).Lsh(big.NewInt(1), uint(8*len(b))))
	}
	return normalInt(z)
}

func normalInt(z *big.Int) Value {
	if z.IsInt64() {
		return z.Int64()
	}
	return z
}

// maxDigits is Python's own limit for integers in decimal text.
const maxDigits = 4300

func decimal(s string) (Value, error) {
	if len(s) > maxDigits {
		return nil, fmt.Errorf("an integer has more than %d digits", maxDigits)
	}
	z, ok := new(big.Int).SetString(s, 10)
	if !ok {
		return nil, fmt.Errorf("%q is not an integer", s)
	}
	return normalInt(z), nil
}

func opIntText(m *machine) error {
	b, err := m.src.line()
	if err != nil {
		return err
	}
	switch s := string(b); s {
	case "00":
		return m.push(false)
	case "01":
		return m.push(true)
	default:
		v, err := decimal(s)
		if err != nil {
			return err
		}
		return m.push(v)
	}
}

func opLongText(m *machine) error {
	b, err := m.src.line()
	if err != nil {
		return err
	}
	if n := len(b); n > 0 && b[n-1] == 'L' {
		b = b[:n-1]
	}
	v, err := decimal(string(b))
	if err != nil {
		return err
	}
	return m.push(v)
}

func opFloatText(m *machine) error {
	b, err := m.src.line()
	if err != nil {
		return err
	}
	v, err := strconv.ParseFloat(string(b), 64)
	if err != nil && !errors.Is(err, strconv.ErrRange) {
		return fmt.Errorf("%.40q is not a number", b)
	}
	return m.push(v)
}

// str reads text whose length takes n bytes. Python 2's byte strings are read
// as text too, as torch.load does.
func str(n uint64) func(*machine) error {
	return func(m *machine) error {
		b, err := m.block(n)
		if err != nil {
			return err
		}
		return m.push(string(b))
	}
}

func rawBytes(n uint64) func(*machine) error {
	return func(m *machine) error {
		b, err := m.block(n)
		if err != nil {
			return err
		}
		return m.push(Bytes(b))
	}
}

func (m *machine) block(n uint64) ([]byte, error) {
	size, err := m.src.little(n)
	if err != nil {
		return nil, err
	}
	return m.src.take(size)
}

func opByteArray(m *machine) error {
	b, err := m.block(8)
	if err != nil {
		return err
	}
	c, err := m.class("builtins", "bytearray")
	if err != nil {
		return err
	}
	return m.push(&Object{Class: c, Args: NewTuple(Bytes(b))})
}

// opStringText reads a Python 2 string literal in quotes.
func opStringText(m *machine) error {
	b, err := m.src.line()
	if err != nil {
		return err
	}
	n := len(b)
	if n < 2 || b[0] != b[n-1] || b[0] != '\'' && b[0] != '"' {
		return errors.New("a string has no quotes")
	}
	s, err := unescape(string(b[1 : n-1]))
	if err != nil {
		return err
	}
	return m.push(s)
}

// unescape resolves the escapes that Python 2's repr of a string writes.
func unescape(s string) (string, error) {
	out := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		if s[i] != '\\' {
			out = append(out, s[i])
			continue
		}
		i++
		if i == len(s) {
			return "", errors.New("a string ends with a backslash")
		}
		switch s[i] {
		case 'n':
			out = append(out, '\n')
		case 't':
			out = append(out, '\t')
		case 'r':
			out = append(out, '\r')
		case '\\', '\'', '"':
			out = append(out, s[i])
		case 'x':
			if i+2 >= len(s) {
				return "", errors.New("a string has a broken escape")
			}
			v, err := strconv.ParseUint(s[i+1:i+3], 16, 8)
			if err != nil {
				return "", errors.New("a string has a broken escape")
			}
			out = append(out, byte(v))
			i += 2
		default:
			out = append(out, '\\', s[i])
		}
	}
	return string(out), nil
}

// opUnicodeText reads text in Python's raw-unicode-escape encoding: Latin-1
// with \uXXXX and \UXXXXXXXX.
func opUnicodeText(m *machine) error {
	b, err := m.src.line()
	if err != nil {
		return err
	}
	var out []rune
	for i := 0; i < len(b); i++ {
		n := 0
		if b[i] == '\\' && i+1 < len(b) {
			switch b[i+1] {
			case 'u':
				n = 4
			case 'U':
				n = 8
			}
		}
		if n == 0 {
			out = append(out, rune(b[i]))
			continue
		}
		if i+2+n > len(b) {
			return errors.New("a string has a broken escape")
		}
		v, err := strconv.ParseUint(string(b[i+2:i+2+n]), 16, 31)
		if err != nil {
			return errors.New("a string has a broken escape")
		}
		out = append(out, rune(v))
		i += 1 + n
	}
	return m.push(string(out))
}

// indexed runs a memo instruction whose number takes n bytes.
func indexed(n uint64, run func(*machine, uint64) error) func(*machine) error {
	return func(m *machine) error {
		i, err := m.src.little(n)
		if err != nil {
			return err
		}
		return run(m, i)
	}
}

func (m *machine) textIndex() (uint64, error) {
	b, err := m.src.line()
	if err != nil {
		return 0, err
	}
	i, err := strconv.ParseUint(string(b), 10, 32)
	if err != nil {
		return 0, fmt.Errorf("%.20q is not a memo number", b)
	}
	return i, nil
}

func opPutText(m *machine) error {
	i, err := m.textIndex()
	if err != nil {
		return err
	}
	return m.put(i)
}

func opGetText(m *machine) error {
	i, err := m.textIndex()
	if err != nil {
		return err
	}
	return m.get(i)
}
