package cpuid

// cpuid gives the registers that the instruction CPUID writes.
func cpuid(leaf, sub uint32) (a, b, c, d uint32)

// xgetbv gives the lower half of XCR0: the register state that the system saves.
func xgetbv() uint32

// detect gives the instruction sets that this CPU has and the system lets
// programs use.
func detect() []string {
	top, _, _, _ := cpuid(0, 0)
	ext, _, _, _ := cpuid(0x8000_0000, 0)
	_, _, one, _ := cpuid(1, 0)
	saved := uint32(0)
	if one&(1<<27) != 0 { // OSXSAVE
		saved = xgetbv()
	}
	if saved&tileState == tileState && !tilesAllowed() {
		saved &^= tileState
	}
	var out []string
	for _, f := range X86 {
		if f.Leaf < 0x8000_0000 && f.Leaf > top || f.Leaf >= 0x8000_0000 && f.Leaf > ext || saved&f.State != f.State {
			continue
		}
		if f.Leaf == 7 && f.Sub > 0 {
			if subs, _, _, _ := cpuid(7, 0); f.Sub > subs {
				continue
			}
		}
		a, b, c, d := cpuid(f.Leaf, f.Sub)
		if [4]uint32{a, b, c, d}[f.Reg]&(1<<f.Bit) != 0 {
			out = append(out, f.Name)
		}
	}
	return out
}
