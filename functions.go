package workpool

import (
	"fmt"
	"reflect"
)

// functions are the user's functions, from options, with the types of the pool.
type functions[T, R any] struct {
	result   func(Result[T, R])
	key      func(T) any
	priority func(T) Priority
}

func functionsOf[T, R any](c config) (f functions[T, R], err error) {
	if f.result, err = typedOf[func(Result[T, R])]("WithResultFunc", c.resultFunc, c.resultFunc); err != nil {
		return f, err
	}
	if f.key, err = typedOf[func(T) any]("WithKey", c.keyFunc, c.key); err != nil {
		return f, err
	}
	f.priority, err = typedOf[func(T) Priority]("WithPriority", c.priority, c.priority)
	return f, err
}

// typedOf returns the function given with the option name as an F, the type that the pool
// needs. It returns nil if there is none.
func typedOf[F any](name string, given, function any) (F, error) {
	f, ok := function.(F)
	if function == nil || ok {
		return f, nil
	}
	want := reflect.TypeFor[F]().String()
	if name == "WithKey" {
		want = fmt.Sprintf("func(%v) K", reflect.TypeFor[F]().In(0))
	}
	return f, invalid("%s(%T): this pool needs a %s", name, given, want)
}

// classifies reports whether tasks have keys or priorities.
func (f *functions[T, R]) classifies() bool { return f.key != nil || f.priority != nil }

// classify calls the functions given with WithKey and WithPriority.
func (f *functions[T, R]) classify(task T) (c class, err error) {
	defer func() {
		if v := recover(); v != nil {
			err = from("key or priority function", newPanicError(v))
		}
	}()
	if f.key != nil {
		c.key = f.key(task)
	}
	if f.priority != nil {
		c.level, err = levelOf(f.priority(task))
	}
	return c, err
}
