package cpu

import "slices"

// cpuid gives the registers that the instruction CPUID writes.
func cpuid(leaf, sub uint32) (a, b, c, d uint32)

// xgetbv gives the lower half of XCR0: the register state that the system saves.
func xgetbv() uint32

// detect gives the instruction sets that this CPU has and the system lets
// programs use, sorted.
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
	for _, f := range x86Features {
		if f.leaf < 0x8000_0000 && f.leaf > top || f.leaf >= 0x8000_0000 && f.leaf > ext || saved&f.state != f.state {
			continue
		}
		if f.leaf == 7 && f.sub > 0 {
			if subs, _, _, _ := cpuid(7, 0); f.sub > subs {
				continue
			}
		}
		a, b, c, d := cpuid(f.leaf, f.sub)
		if [4]uint32{a, b, c, d}[f.reg]&(1<<f.bit) != 0 {
			out = append(out, f.name)
		}
	}
	slices.Sort(out)
	return out
}
