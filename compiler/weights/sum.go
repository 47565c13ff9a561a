package weights

import "hash/crc32"

// crcPoly is the IEEE polynomial without its leading term, bit-reversed.
const crcPoly = 0xedb88320

// crcMul multiplies two polynomials over GF(2) modulo the CRC-32 polynomial,
// both bit-reversed (the method of zlib's crc32_combine).
func crcMul(a, b uint32) uint32 {
	var p uint32
	for m := uint32(1) << 31; a != 0; m >>= 1 {
		if a&m != 0 {
			p ^= b
			a &^= m
		}
		if b&1 != 0 {
			b = b>>1 ^ crcPoly
		} else {
			b >>= 1
		}
	}
	return p
}

// crcPowers holds x to the power of 8·2^k, the effect of 2^k zero bytes.
var crcPowers = func() (t [63]uint32) {
	p := uint32(1) << 30 // x
	for range 3 {
		p = crcMul(p, p)
	}
	for k := range t {
		t[k] = p
		p = crcMul(p, p)
	}
	return t
}()

// crcShift is the factor by which n further bytes move a CRC-32.
func crcShift(n int64) uint32 {
	p := uint32(1) << 31
	for k := 0; n != 0; k++ {
		if n&1 != 0 {
			p = crcMul(crcPowers[k], p)
		}
		n >>= 1
	}
	return p
}

// CombineCRC is the IEEE CRC-32 of A followed by B, from the CRCs of both and
// the length of B.
func CombineCRC(a, b uint32, lenB int64) uint32 { return crcMul(crcShift(lenB), a) ^ b }

// ZeroCRC is the IEEE CRC-32 of n zero bytes.
func ZeroCRC(n int64) uint32 { return ^crcMul(crcShift(n), ^uint32(0)) }

// CRC is the IEEE CRC-32 of b.
func CRC(b []byte) uint32 { return crc32.ChecksumIEEE(b) }
