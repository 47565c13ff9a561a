package deepspeed

import (
	"github.com/lathe-ml/lathe/zoo/checkpoint/atom"
	"github.com/lathe-ml/lathe/zoo/checkpoint/engine"
)

// Layout is a target layout.
type Layout struct {
	TP, PP, DP, EP, Zero int
}

// Plan lists the files of a native checkpoint.
func Plan(c *atom.Checkpoint, l Layout) ([]engine.File, error) { return nil, nil }
