package ledger_test

import "sync"

// race runs as many goroutines as there are racers and waits for them.
func race(racers int, run func(racer int)) {
	var wg sync.WaitGroup
	for i := range racers {
		wg.Go(func() { run(i) })
	}
	wg.Wait()
}
