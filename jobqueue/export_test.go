package jobqueue

import "time"

// BackoffOf returns what the jobs of q wait for after an attempt.
func BackoffOf[T, R any](q *Queue[T, R]) func(attempt int) time.Duration { return q.backoff }
