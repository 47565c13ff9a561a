package atom

// A Place is where a pipeline module stores a parameter: the layer's file and
// the key in it.
type Place struct {
	Layer int
	Key   string
}
