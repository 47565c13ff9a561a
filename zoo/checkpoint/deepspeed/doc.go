// Package deepspeed reads DeepSpeed's native checkpoints into atoms and writes
// them: ZeRO-1, 2 and 3, the BF16 optimizer, elastic and native-MoE forms,
// pipeline and tensor parallelism, versions 0.9 to current.
//
// It must not know other formats. Reading order: names.go (file names),
// open.go (topology and the order of work), models.go (model-states files),
// zero12.go, zero3.go (optimizer files), moe.go (experts), weights.go (model
// weights, buffers, frozen and tied parameters), merge.go (rank shards to
// logical tensors), write.go and its neighbours (the other way).
package deepspeed
