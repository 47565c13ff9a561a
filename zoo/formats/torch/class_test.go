package torch

import (
	"strings"
	"testing"
)

// TestClassTables: the lists agree with each other.
func TestClassTables(t *testing.T) {
	for name := range enumClasses {
		i := strings.LastIndexByte(name, '.')
		if c := (Class{name[:i], name[i+1:]}); !known(c) {
			t.Errorf("%s is an enum whose members are read, but no known class", name)
		}
	}
	for module, names := range knownClasses {
		for _, n := range strings.Fields(names) {
			c := Class{module, n}
			if refusedNames[c.String()] || canonical(module, n) != c {
				t.Errorf("%s is both known and refused, or not under its Python 3 name", c.String())
			}
		}
		for _, m := range refusedModules {
			if module == m || strings.HasPrefix(module, m+".") {
				t.Errorf("module %s is both known and refused", module)
			}
		}
	}
	for name := range rebuilders {
		i := strings.LastIndexByte(name, '.')
		if !known(Class{name[:i], name[i+1:]}) {
			t.Errorf("%s is rebuilt, but not known", name)
		}
	}
	for _, c := range []Class{{"osmium", "X"}, {"system", "X"}, {"my.os", "X"}} {
		if err := admit(c, false); err != nil {
			t.Errorf("%v is refused for a likeness: %v", c, err)
		}
	}
}
