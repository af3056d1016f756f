package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func init() { roles["moment"] = moment }

const (
	momentReaders = 24
	momentPause   = 300 * time.Millisecond
	momentWorkers = 2 // that use up the quota, so that one reader is stopped where another overtakes it
)

// Several readers at one moment, long after anybody read the file: none of them is given what the last one saw. The kernel takes up new attributes
// before it drops the page that they outdate, so a page that is left there is found.
func TestReadersAtOneMoment(t *testing.T) {
	needRoot(t)
	d := serve(t)
	c := d.container([]string{"--memory", "256M", "--cpus", "0.5"}, asRole("moment", strconv.Itoa(rounds(100, 20)))...)
	late := decode[[]time.Duration](t, c.line())
	c.close()
	slices.Sort(late)
	t.Logf("%d reads, median %v behind, most %v", len(late), late[len(late)/2], late[len(late)-1])
	limit := momentPause / 2
	if testing.Short() { // a reader that its quota stops takes up its answer, and begins to count the tick, when it goes on: after 0.1 s on an emulated CPU
		limit = momentPause * 9 / 10
	}
	if most := late[len(late)-1]; most > limit {
		t.Errorf("one was given a text of %v before it read", most)
	}
}

// moment is in the container: its threads read its uptime at the same moments and say how far behind the text was.
func moment(args []string) error {
	count, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	stat, err := os.ReadFile("/proc/1/stat")
	if err != nil {
		return err
	}
	ticks, err := strconv.ParseInt(string(bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])[22-3]), 10, 64)
	if err != nil {
		return err
	}
	begun := time.Duration(ticks) * time.Second / userHZ
	time.Sleep(1500 * time.Millisecond) // of younger containers nothing is kept
	var all sync.WaitGroup
	late, errs := make([][]time.Duration, momentReaders), make([]error, momentReaders)
	first := boottime() + momentPause
	for range momentWorkers {
		go func() {
			runtime.LockOSThread()
			for {
				boottime()
			}
		}()
	}
	for i := range momentReaders {
		all.Go(func() {
			runtime.LockOSThread()
			for n := range count {
				behind, err := behindAt(first + time.Duration(n)*momentPause)
				if err != nil {
					errs[i] = err
					return
				}
				late[i] = append(late[i], behind-begun)
			}
		})
	}
	all.Wait()
	fmt.Println(encode(slices.Concat(late...)))
	return errors.Join(errs...)
}

func boottime() time.Duration {
	var ts unix.Timespec
	unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts)
	return time.Duration(ts.Nano())
}

// behindAt reads the uptime about a moment, and gives how much less it is than the host's was just before.
func behindAt(at time.Duration) (behind time.Duration, err error) {
	time.Sleep(at - boottime() + rand.N(time.Millisecond))
	before := boottime()
	text, err := os.ReadFile("/proc/uptime")
	if err != nil {
		return 0, err
	}
	first, _, _ := bytes.Cut(text, []byte(" "))
	up, err := strconv.ParseFloat(string(first), 64)
	return before - time.Duration(up*float64(time.Second)), err
}
