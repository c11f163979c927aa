package jobqueue

import (
	"encoding/json"
	"fmt"
	"reflect"
	"runtime/debug"

	"github.com/seed-a18b2dc9/workpool"
)

// A Codec turns values into the bytes that are stored, and back. It is used by
// many goroutines at once.
//
// A job that Decode refuses is retried like one that has failed, since other workers
// may know what this one does not, as while a new version is rolled out. After the
// last attempt, or at once if the error was made by workpool.Permanent, it becomes a
// dead letter. So does a job whose result can't be encoded.
type Codec[V any] interface {
	Encode(value V) ([]byte, error)
	Decode(data []byte) (V, error)
}

// JSON is the codec that is used where [WithCodec] sets no other. It is that of
// package encoding/json.
type JSON[V any] struct{}

// Encode returns the JSON of value.
func (JSON[V]) Encode(value V) ([]byte, error) { return json.Marshal(value) }

// Decode returns the value of a JSON text.
func (JSON[V]) Decode(data []byte) (V, error) {
	var value V
	err := json.Unmarshal(data, &value)
	return value, err
}

// codecOf returns the codec among those given that is for V, the last one if
// there are several, or that for JSON.
func codecOf[V any](given []any) Codec[V] {
	var codec Codec[V] = JSON[V]{}
	for _, g := range given {
		if c, ok := g.(Codec[V]); ok {
			codec = c
		}
	}
	return codec
}

// checkCodecs returns an error if one of the codecs is for neither type of the
// queue.
func checkCodecs[T, R any](given []any) error {
	for _, g := range given {
		_, forJob := g.(Codec[T])
		_, forResult := g.(Codec[R])
		if !forJob && !forResult {
			return invalid("WithCodec(%T): the queue has jobs of type %v and results of type %v", g, reflect.TypeFor[T](), reflect.TypeFor[R]())
		}
	}
	return nil
}

// decode is codec.Decode, with a panic as an error.
func decode[V any](codec Codec[V], data []byte) (value V, err error) {
	defer catch(&err)
	return codec.Decode(data)
}

// encode is codec.Encode, with a panic as an error.
func encode[V any](codec Codec[V], value V) (data []byte, err error) {
	defer catch(&err)
	return codec.Encode(value)
}

// alone calls f in a goroutine of its own, with a panic or runtime.Goexit as an error.
func alone[V any](f func() (V, error)) (value V, err error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer catch(&err)
		err = workpool.ErrGoexit
		value, err = f()
	}()
	<-done
	return value, err
}

// catch, deferred, makes an error of a panic.
func catch(err *error) {
	if v := recover(); v != nil {
		*err = fmt.Errorf("%w", &workpool.PanicError{Value: v, Stack: debug.Stack()})
	}
}
