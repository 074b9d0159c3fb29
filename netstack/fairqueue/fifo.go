package fairqueue

// fifo is a queue in one slice. The zero value is empty.
type fifo[T any] struct {
	all  []T
	head int // all[:head] is popped
}

func (f *fifo[T]) len() int { return len(f.all) - f.head }

func (f *fifo[T]) push(v T) {
	if f.head > 0 && len(f.all) == cap(f.all) {
		n := copy(f.all, f.all[f.head:])
		clear(f.all[n:])
		f.all, f.head = f.all[:n], 0
	}
	f.all = append(f.all, v)
}

func (f *fifo[T]) peek() T { return f.all[f.head] }

func (f *fifo[T]) pop() T {
	var none T
	v := f.all[f.head]
	f.all[f.head] = none
	if f.head++; f.head == len(f.all) {
		f.all, f.head = f.all[:0], 0
	}
	return v
}

// popLast removes the newest value.
func (f *fifo[T]) popLast() T {
	var none T
	last := len(f.all) - 1
	v := f.all[last]
	f.all[last] = none
	if f.all = f.all[:last]; f.head == last {
		f.all, f.head = f.all[:0], 0
	}
	return v
}

func (f *fifo[T]) peekLast() T { return f.all[len(f.all)-1] }

// removeFrom removes v from a list.
func removeFrom[T comparable](f *fifo[T], v T) {
	for i := f.head; i < len(f.all); i++ {
		if f.all[i] == v {
			copy(f.all[i:], f.all[i+1:])
			var none T
			f.all[len(f.all)-1] = none
			f.all = f.all[:len(f.all)-1]
			break
		}
	}
	if f.head == len(f.all) {
		f.all, f.head = f.all[:0], 0
	}
}
