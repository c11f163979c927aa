package workpool

import "runtime"

// goroutineID returns the number of the calling goroutine, which Go gives away only in the
// text of its stack, or 0 if that should ever look different. It is how Results recognizes
// a handler, which hands it no context.
func goroutineID() (id uint64) {
	var text [32]byte
	n := runtime.Stack(text[:], false)
	for _, digit := range text[min(n, len("goroutine ")):n] {
		if digit < '0' || digit > '9' {
			break
		}
		id = 10*id + uint64(digit-'0')
	}
	return id
}
