package engine

import (
	"k8s.io/client-go/util/workqueue"
)

// freshFirst is an order of work: objects that are not on the host yet come
// before those of which something has changed. In a burst, what takes longest
// afterwards begins first. It is called with the queue's lock held.
type freshFirst struct {
	isFresh func(request) bool
	fresh   fifo
	rest    fifo
}

var _ workqueue.Queue[request] = (*freshFirst)(nil)

// Touch is for an item that is there already.
func (q *freshFirst) Touch(request) {}

// Push adds an item.
func (q *freshFirst) Push(r request) {
	if q.isFresh(r) {
		q.fresh.push(r)
		return
	}
	q.rest.push(r)
}

// Len counts the items.
func (q *freshFirst) Len() int { return q.fresh.len() + q.rest.len() }

// Pop removes the next item; there is one.
func (q *freshFirst) Pop() request {
	if q.fresh.len() > 0 {
		return q.fresh.pop()
	}
	return q.rest.pop()
}

// fifo gives its memory back when it has been empty.
type fifo struct {
	items []request
	first int
}

func (f *fifo) len() int { return len(f.items) - f.first }

func (f *fifo) push(r request) { f.items = append(f.items, r) }

func (f *fifo) pop() request {
	r := f.items[f.first]
	f.items[f.first] = request{}
	f.first++
	if f.first == len(f.items) {
		f.items, f.first = nil, 0
	}
	return r
}
