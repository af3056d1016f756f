package fs

// Report is what a worker says of itself, a part of what "lensfs status --json" prints.
type Report struct {
	Requests uint64 `json:"requests"`
}

// Report gives what is to be said now.
func (w *Worker) Report() Report { return Report{Requests: w.Stats.Requests.Load()} }
