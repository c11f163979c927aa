// Package queues measures jobqueue beside other durable job queues for Go: asynq,
// which stores in Redis, and River, here with SQLite. It is a module of its own
// because what it needs is heavy, and holds benchmarks only.
//
// Each queue stores in files, and as its own documentation has it for speed; what
// was set is said at each. All keep what they accepted when a process is killed. In
// a power loss they differ: jobqueue syncs each 100 ms, redis-server each second
// (appendonly yes, appendfsync everysec), and SQLite (WAL, synchronous=NORMAL) at
// checkpoints only, so that this much may be lost.
package queues
