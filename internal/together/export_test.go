package together

// Waiting is how many keys wait for a question that has not been put yet.
func (q *Questions[K, V]) Waiting() (n int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, r := range q.rounds {
		n += len(r.about)
	}
	return n
}
