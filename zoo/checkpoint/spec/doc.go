// Package spec is the language of Universal Checkpointing: patterns over
// parameter names that say how tensor parallelism lays a parameter out (unique,
// replicated, averaged, a fragment of rows, columns or fused sub-parameters),
// and which are vocabulary, pipeline-replicated or expert parameters.
//
// It must not know files or states. Reading order: spec.go (rules and their
// matching), shard.go (a rule and local shapes to boxes, and back), ucinfo.go
// (DeepSpeed's universal_checkpoint_info), yaml.go (the text form), pyre.go
// (Python's regular expressions), infer.go (a proposal from names and shapes).
package spec
