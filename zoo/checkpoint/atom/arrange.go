package atom

import (
	"slices"

	"github.com/lathe-ml/lathe/zoo/checkpoint/geometry"
)

// AddPiece adds a shard. Parts that earlier shards hold already (heads that
// several tensor-parallel ranks share) become copies, which must be equal.
func (t *Tensor) AddPiece(p Piece) {
	var own, double []geometry.Part
	for _, part := range p.View.Parts {
		if t.holds(part) {
			double = append(double, part)
		} else {
			own = append(own, part)
		}
	}
	if len(double) == 0 {
		t.Pieces = append(t.Pieces, p)
		return
	}
	c := p
	c.View.Parts = double
	t.Copies = append(t.Copies, c)
	if len(own) > 0 {
		p.View.Parts = own
		t.Pieces = append(t.Pieces, p)
	}
}

func (t *Tensor) holds(p geometry.Part) bool {
	for i := range t.Pieces {
		for _, q := range t.Pieces[i].View.Parts {
			if slices.Equal(p.Global, q.Global) && slices.Equal(p.Size, q.Size) {
				return true
			}
		}
	}
	return false
}
