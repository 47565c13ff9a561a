package cli

import (
	"crypto/sha256"
	"encoding/hex"

	"github.com/lathe-ml/lathe/compiler/tensor"
)

// digest is the first 48 bits of a tensor's SHA-256: enough to tell apart what
// is printed side by side.
func digest(t *tensor.Tensor) string {
	h := sha256.New()
	h.Write(t.Bytes())
	for _, s := range t.Strings() {
		h.Write([]byte(s))
		h.Write([]byte{0})
	}
	return hex.EncodeToString(h.Sum(nil)[:6])
}
