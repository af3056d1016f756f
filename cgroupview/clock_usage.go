package cgroupview

import (
	"math"
	"time"
)

// cpuUsage is CPU time that was used.
type cpuUsage struct{ user, system time.Duration }

// most bounds a usage on the way: two such make a Duration, and so do their sums. It is 73 years.
const most = math.MaxInt64 >> 2

func (u cpuUsage) sum() time.Duration { return u.user + u.system }

// plus adds, up to most.
func (u cpuUsage) plus(v cpuUsage) cpuUsage {
	return cpuUsage{user: min(most, u.user+min(most, v.user)), system: min(most, u.system+min(most, v.system))}
}

// minus subtracts; what rounding would bring below 0 is 0.
func (u cpuUsage) minus(v cpuUsage) cpuUsage {
	return cpuUsage{user: max(0, u.user-v.user), system: max(0, u.system-v.system)}
}

// atMost cuts a usage down to limit, user and system in the same measure.
func (u cpuUsage) atMost(limit time.Duration) cpuUsage {
	sum := u.sum()
	if sum <= limit {
		return u
	}
	user := share(u.user, float64(limit)/float64(sum))
	return cpuUsage{user: min(user, limit), system: min(u.system, limit-min(user, limit))}
}

// share is a part, 0 to 1, of d.
func share(d time.Duration, part float64) time.Duration {
	return min(d, time.Duration(float64(d)*part))
}

// advance gives by how much a counter has grown and remembers where it is. One that has gone back, or further than any can, is of another cgroup: the
// container was moved, and what it uses counts from here.
func (u *cpuUsage) advance(now cpuUsage) cpuUsage {
	sum := now.sum() - u.sum()
	if sum < 0 || sum > most {
		*u = now
		return cpuUsage{}
	}
	// Where the halves are worked out from a ratio, either may go back while their sum does not: what has been counted once stays.
	user := min(max(0, now.user-u.user), sum)
	grown := cpuUsage{user: user, system: sum - user}
	u.user += grown.user
	u.system += grown.system
	return grown
}
