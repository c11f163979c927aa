package workpool

import "runtime"

// goroutineID returns the ID of the calling goroutine, or 0 if it is not found. Go only
// reveals the ID in the text of a stack. Results needs it to recognize a handler, since it
// has no context.
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
