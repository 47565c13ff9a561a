package deepspeed

import (
	"fmt"
	"regexp"
	"strconv"
)

// The file names of a tag folder. Numbers are parsed: sorting by text would
// put rank 10 before rank 2.
var (
	reModel  = regexp.MustCompile(`^mp_rank_(\d+)_model_states\.pt$`)
	reModel3 = regexp.MustCompile(`^(?:bf16_|fp16_)?zero_pp_rank_(\d+)_mp_rank_(\d+)_model_states\.pt$`)
	reOptim  = regexp.MustCompile(`^(bf16_|fp16_)?zero_pp_rank_(\d+)_mp_rank_(\d+)_optim_states\.pt$`)
	reLayer  = regexp.MustCompile(`^layer_(\d+)-model_(\d+)-model_states\.pt$`)
	reExpert = regexp.MustCompile(`^layer_(-?\d+)_expert_(\d+)_mp_rank_(\d+)_model_states\.pt$`)
	reExpp   = regexp.MustCompile(`^expp_rank_(\d+)_mp_rank_(\d+)_optim_states\.pt$`)
)

// rankFile is a file that belongs to ranks.
type rankFile struct {
	name string
	a, b int // model: mp, 0 · model3 and optim: mp, dp · layer: layer, tp · expert: layer, expert
	mp   int
}

// listing is what lies in a tag folder.
type listing struct {
	model, model3, optim, layer, expert, expp []rankFile
	bf16                                      bool
	offloaded                                 bool
	other                                     []string
}

func (l *listing) add(name string) {
	num := func(s string) int {
		n, _ := strconv.Atoi(s)
		return n
	}
	if m := reModel.FindStringSubmatch(name); m != nil {
		l.model = append(l.model, rankFile{name: name, a: num(m[1])})
	} else if m := reModel3.FindStringSubmatch(name); m != nil {
		l.model3 = append(l.model3, rankFile{name: name, a: num(m[2]), b: num(m[1])})
	} else if m := reOptim.FindStringSubmatch(name); m != nil {
		l.bf16 = l.bf16 || m[1] == "bf16_"
		l.optim = append(l.optim, rankFile{name: name, a: num(m[3]), b: num(m[2])})
	} else if m := reLayer.FindStringSubmatch(name); m != nil {
		l.layer = append(l.layer, rankFile{name: name, a: num(m[1]), b: num(m[2])})
	} else if m := reExpert.FindStringSubmatch(name); m != nil {
		l.expert = append(l.expert, rankFile{name: name, a: num(m[1]), b: num(m[2]), mp: num(m[3])})
	} else if m := reExpp.FindStringSubmatch(name); m != nil {
		l.expp = append(l.expp, rankFile{name: name, a: num(m[1]), b: num(m[2])})
	} else {
		l.other = append(l.other, name)
	}
}

func modelName(mp int) string { return fmt.Sprintf("mp_rank_%02d_model_states.pt", mp) }

func model3Name(dp, mp int) string {
	return fmt.Sprintf("zero_pp_rank_%d_mp_rank_%02d_model_states.pt", dp, mp)
}

func optimName(bf16 bool, dp, mp int) string {
	prefix := ""
	if bf16 {
		prefix = "bf16_"
	}
	return fmt.Sprintf("%szero_pp_rank_%d_mp_rank_%02d_optim_states.pt", prefix, dp, mp)
}

func layerName(layer, tp int) string {
	return fmt.Sprintf("layer_%02d-model_%02d-model_states.pt", layer, tp)
}

func expertName(layer, expert, mp int) string {
	return fmt.Sprintf("layer_%d_expert_%d_mp_rank_%02d_model_states.pt", layer, expert, mp)
}

func exppName(ep, mp int) string {
	return fmt.Sprintf("expp_rank_%d_mp_rank_%02d_optim_states.pt", ep, mp)
}
