package onnx

// huffman decodes codes of up to 16 bits, canonical ones.
type huffman struct {
	first [17]int // first code of each length
	count [17]int
	index [17]int // where the values of a length begin
	value []byte
}

func (f *jpegFile) tables(b []byte) {
	for len(b) >= 17 && f.err == nil {
		class, id := b[0]>>4, b[0]&15
		h := &huffman{}
		code, total := 0, 0
		for n := 1; n <= 16; n++ {
			code <<= 1
			h.first[n], h.count[n], h.index[n] = code, int(b[n]), total
			code += h.count[n]
			total += h.count[n]
		}
		if class > 1 || id > 3 || total > 256 || len(b) < 17+total {
			f.fail("a Huffman table is broken")
			return
		}
		h.value = b[17 : 17+total]
		f.huff[4*class+id] = h
		b = b[17+total:]
	}
}

// bit reads one bit of a scan; beyond its end there are zeros.
func (f *jpegFile) bit() int32 {
	if f.nbits == 0 {
		f.bits, f.nbits = 0, 8
		if f.at < len(f.data) {
			switch c := f.data[f.at]; {
			case c != 0xff:
				f.bits = uint32(c)
				f.at++
			case f.at+1 < len(f.data) && f.data[f.at+1] == 0:
				f.bits = 0xff
				f.at += 2
			}
		}
	}
	f.nbits--
	return int32(f.bits >> f.nbits & 1)
}

func (f *jpegFile) number(n int) int32 {
	v := int32(0)
	for range n {
		v = v<<1 | f.bit()
	}
	return v
}

// signed reads n bits of which the first tells the sign.
func (f *jpegFile) signed(n int) int32 {
	if n == 0 {
		return 0
	}
	v := f.number(n)
	if v < 1<<(n-1) {
		v += -1<<n + 1
	}
	return v
}

func (f *jpegFile) symbol(h *huffman) int {
	code := 0
	for n := 1; n <= 16; n++ {
		code = code<<1 | int(f.bit())
		if k := code - h.first[n]; k >= 0 && k < h.count[n] {
			return int(h.value[h.index[n]+k])
		}
	}
	f.fail("a code is in no Huffman table")
	return 0
}

// scanPart is what a scan says of the coefficients that it carries.
type scanPart struct {
	from, to  int  // band of coefficients
	high, low uint // bits: high is what earlier scans brought, 0 for none
}

func (f *jpegFile) scan(b []byte) {
	n := 0
	if len(b) > 0 {
		n = int(b[0])
	}
	if f.parts == nil || n < 1 || n > len(f.parts) || len(b) < 4+2*n {
		f.fail("a scan header is broken")
		return
	}
	var parts []*jpegPart
	for i := range n {
		var p *jpegPart
		for _, q := range f.parts {
			if q.id == int(b[1+2*i]) {
				p = q
			}
		}
		if p == nil || b[2+2*i]>>4 > 3 || b[2+2*i]&15 > 3 {
			f.fail("a scan names component %d", b[1+2*i])
			return
		}
		p.dc, p.ac = int(b[2+2*i]>>4), 4+int(b[2+2*i]&15)
		parts = append(parts, p)
	}
	s := scanPart{from: int(b[1+2*n]), to: int(b[2+2*n]), high: uint(b[3+2*n] >> 4), low: uint(b[3+2*n] & 15)}
	if !f.progressive {
		s = scanPart{to: 63}
	}
	if s.from > s.to || s.to > 63 || s.low > 13 || f.progressive && s.from == 0 && s.to != 0 || s.from > 0 && n > 1 {
		f.fail("a scan of coefficients %d to %d", s.from, s.to)
		return
	}
	for _, p := range parts {
		if (s.from == 0 && s.high == 0 && f.huff[p.dc] == nil) || s.to > 0 && f.huff[p.ac] == nil {
			f.fail("a scan lacks its Huffman table")
			return
		}
	}
	f.reset(parts)
	f.units(parts, s)
}

// reset begins a scan or an interval between restart markers.
func (f *jpegFile) reset(parts []*jpegPart) {
	f.nbits, f.eobRun = 0, 0
	for _, p := range parts {
		p.last = 0
	}
}

// units walks the blocks of a scan: of one component row by row, of several
// interleaved.
func (f *jpegFile) units(parts []*jpegPart, s scanPart) {
	cols, rows := parts[0].wide, parts[0].high
	if len(parts) > 1 {
		cols, rows = parts[0].cols/parts[0].h, parts[0].rows/parts[0].v
	}
	for u := 0; u < cols*rows && f.err == nil; u++ {
		if f.restart > 0 && u > 0 && u%f.restart == 0 {
			f.skipRestart()
			f.reset(parts)
		}
		x, y := u%cols, u/cols
		if len(parts) == 1 {
			f.block(parts[0], x, y, s)
			continue
		}
		for _, p := range parts {
			for k := range p.h * p.v {
				f.block(p, x*p.h+k%p.h, y*p.v+k/p.h, s)
			}
		}
	}
	f.nbits = 0
}

// skipRestart moves behind the next restart marker, if one comes before any
// other marker.
func (f *jpegFile) skipRestart() {
	for at := f.at; at+1 < len(f.data); at++ {
		if f.data[at] != 0xff || f.data[at+1] == 0 || f.data[at+1] == 0xff {
			continue
		}
		if m := f.data[at+1]; m >= 0xd0 && m <= 0xd7 {
			f.at = at + 2
		}
		return
	}
}

func (f *jpegFile) block(p *jpegPart, x, y int, s scanPart) {
	c := p.coef[64*(y*p.cols+x):][:64]
	switch {
	case s.from > 0 && s.high > 0:
		f.refine(p, c, s)
		return
	case s.from == 0 && s.high > 0:
		c[0] |= f.bit() << s.low
		return
	case s.from == 0:
		n := f.symbol(f.huff[p.dc])
		if n > 15 {
			f.fail("a DC coefficient of %d bits", n)
			return
		}
		p.last += f.signed(n)
		c[0] = p.last << s.low
	}
	if f.eobRun > 0 {
		f.eobRun--
		return
	}
	for k := max(s.from, 1); k <= s.to && f.err == nil; k++ {
		v := f.symbol(f.huff[p.ac])
		run, n := v>>4, v&15
		switch {
		case n > 0:
			if k += run; k > 63 {
				f.fail("a run of zeros leaves its block")
				return
			}
			c[zigzag[k]] = f.signed(n) << s.low
		case run == 15:
			k += 15
		default:
			if f.progressive {
				f.eobRun = 1<<run - 1 + int(f.number(run))
			}
			return
		}
	}
}

// refine adds one bit to the coefficients of a band.
func (f *jpegFile) refine(p *jpegPart, c []int32, s scanPart) {
	one := int32(1) << s.low
	more := func(i int) { // a bit for a coefficient that is known not to be 0
		if f.bit() == 0 || c[i]&one != 0 && c[i] > 0 || -c[i]&one != 0 && c[i] < 0 {
			return
		}
		if c[i] > 0 {
			c[i] += one
		} else {
			c[i] -= one
		}
	}
	k := s.from
	for f.eobRun == 0 && k <= s.to && f.err == nil {
		v := f.symbol(f.huff[p.ac])
		run, n := v>>4, v&15
		fresh := int32(0)
		switch {
		case n == 1:
			fresh = one
			if f.bit() == 0 {
				fresh = -one
			}
		case n > 1:
			f.fail("a refinement of %d bits", n)
			return
		case run < 15:
			f.eobRun = 1<<run + int(f.number(run))
		}
		if f.eobRun > 0 {
			break
		}
		for ; k <= s.to; k++ {
			if i := zigzag[k]; c[i] != 0 {
				more(i)
				continue
			}
			if run == 0 {
				c[zigzag[k]] = fresh
				k++
				break
			}
			run--
		}
	}
	if f.eobRun > 0 {
		for ; k <= s.to; k++ {
			if i := zigzag[k]; c[i] != 0 {
				more(i)
			}
		}
		f.eobRun--
	}
}

// inverseDCT is the accurate integer transform of Loeffler, Ligtenberg and
// Moschytz in the scaling of libjpeg: 13 bits of constants, 2 more between the
// passes; the results are samples from 0 to 255.
func inverseDCT(b []int32) {
	for x := range 8 {
		lineDCT(b, x, 8, 11, 0)
	}
	for y := range 8 {
		lineDCT(b, 8*y, 1, 18, 128)
		for x := range 8 {
			b[8*y+x] = min(max(b[8*y+x], 0), 255)
		}
	}
}

// lineDCT transforms eight numbers at a stride, rounds off shift bits and adds
// a level.
func lineDCT(b []int32, at, stride int, shift uint, level int32) {
	in := func(i int) int64 { return int64(b[at+i*stride]) }
	z1 := (in(2) + in(6)) * 4433
	t2, t3 := z1-in(6)*15137, z1+in(2)*6270
	t0, t1 := (in(0)+in(4))<<13, (in(0)-in(4))<<13
	even := [4]int64{t0 + t3, t1 + t2, t1 - t2, t0 - t3}
	o0, o1, o2, o3 := in(7), in(5), in(3), in(1)
	z1, z2, z3, z4 := o0+o3, o1+o2, o0+o2, o1+o3
	z5 := (z3 + z4) * 9633
	z1, z2, z3, z4 = z1*-7373, z2*-20995, z3*-16069+z5, z4*-3196+z5
	odd := [4]int64{o3*12299 + z1 + z4, o2*25172 + z2 + z3, o1*16819 + z2 + z4, o0*2446 + z1 + z3}
	round := int64(1) << (shift - 1)
	for i := range 4 {
		b[at+i*stride] = int32((even[i]+odd[i]+round)>>shift) + level
		b[at+(7-i)*stride] = int32((even[i]-odd[i]+round)>>shift) + level
	}
}
