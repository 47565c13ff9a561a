package cpu

import (
	"os"
	"strconv"
	"strings"
)

// dataCaches are the sizes of the L1, L2 and L3 caches that hold data, as the
// system tells them: nil if it does not tell all three.
func dataCaches() []int {
	sizes := make([]int, 3)
	for i := range 8 {
		read := func(name string) string {
			b, err := os.ReadFile("/sys/devices/system/cpu/cpu0/cache/index" + strconv.Itoa(i) + "/" + name)
			if err != nil {
				return ""
			}
			return strings.TrimSpace(string(b))
		}
		level, _ := strconv.Atoi(read("level"))
		kib, isKiB := strings.CutSuffix(read("size"), "K")
		n, _ := strconv.Atoi(kib)
		if isKiB && level >= 1 && level <= 3 && read("type") != "Instruction" {
			sizes[level-1] = n << 10
		}
	}
	if sizes[0] < 4<<10 || sizes[1] <= sizes[0] || sizes[2] <= sizes[1] {
		return nil
	}
	return sizes
}
