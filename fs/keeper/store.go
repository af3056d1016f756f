package keeper

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"

	"github.com/coreos/go-systemd/v22/activation"
	"github.com/coreos/go-systemd/v22/daemon"
	"golang.org/x/sys/unix"
)

// systemd's descriptor store is the last net: if keeper and worker are killed both, the next keeper gets the connections from there, and the memory
// that goes with them. systemd must not wait for the descriptors (FDPOLL=0): it would be woken by every request.

const storePrefix = "lensfs-"

// keep gives copies of the descriptors to systemd, if there is one that keeps them.
func (k *Keeper) keep() {
	socket := os.Getenv("NOTIFY_SOCKET")
	if socket == "" {
		return
	}
	text, err := json.Marshal(k.hand)
	if err == nil {
		var fd int
		if fd, err = memory("handover", 0); err == nil {
			if _, err = unix.Write(fd, text); err == nil {
				daemon.SdNotify(false, "FDSTOREREMOVE=1\nFDNAME="+storePrefix+"handover") // the one before
				err = store(socket, "handover", fd)
			}
			unix.Close(fd)
		}
	}
	for name, fd := range k.fds {
		switch name {
		case fdTreeClaim, fdViewsClaim, fdControl: // they say that somebody lives
		default:
			err = errors.Join(err, store(socket, name, fd))
		}
	}
	if err != nil {
		slog.Warn("systemd does not keep the descriptors: if keeper and worker are killed both, containers lose their views", "err", err)
	}
}

func store(socket, name string, fd int) error {
	s, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(s)
	message := "FDSTORE=1\nFDNAME=" + storePrefix + name + "\nFDPOLL=0"
	if err := unix.Sendmsg(s, []byte(message), unix.UnixRights(fd), &unix.SockaddrUnix{Name: socket}, 0); err != nil {
		return fmt.Errorf("%s: %w", socket, err)
	}
	return nil
}

// unkeep has systemd let go of them.
func (k *Keeper) unkeep() {
	if os.Getenv("NOTIFY_SOCKET") == "" {
		return
	}
	for _, name := range append(k.names(), "handover") {
		daemon.SdNotify(false, "FDSTOREREMOVE=1\nFDNAME="+storePrefix+name)
	}
}

func (k *Keeper) names() (names []string) {
	for name := range k.fds {
		names = append(names, name)
	}
	return names
}

// takeKept gives the descriptors that systemd has kept of a daemon before us.
func takeKept() Descriptors {
	d := Descriptors{}
	for _, file := range activation.Files(true) {
		name, ours := strings.CutPrefix(file.Name(), storePrefix)
		if fd, err := unix.FcntlInt(file.Fd(), unix.F_DUPFD_CLOEXEC, 3); ours && err == nil {
			if old, twice := d[name]; twice {
				unix.Close(old)
			}
			d[name] = fd
		}
		file.Close()
	}
	return d
}

// restore goes on with connections that systemd has kept. Without any it does nothing.
func (k *Keeper) restore(kept Descriptors) error {
	fd, ok := kept["handover"]
	if !ok {
		kept.close()
		return nil
	}
	text := make([]byte, 1<<20)
	n, err := unix.Pread(fd, text, 0)
	unix.Close(fd)
	delete(kept, "handover")
	var h Handover
	if err == nil {
		err = json.Unmarshal(text[:max(0, n)], &h)
	}
	if err == nil {
		err = h.check(kept)
	}
	if err == nil && (h.Tree.Dir != k.cfg.Tree || h.Views != nil && h.Views.Dir != k.cfg.OwnViews) {
		err = fmt.Errorf("it served %s", h.Tree.Dir)
	}
	if err == nil {
		err = h.Tree.remount(kept[FdTree])
	}
	if err == nil && h.Views != nil {
		err = h.Views.remount(kept[FdViews])
	}
	if err != nil {
		kept.close()
		return err
	}
	h.StateDir = k.cfg.StateDir
	k.hand = h
	for name, fd := range kept {
		k.fds[name] = fd
	}
	slog.Info("took over from a daemon that has ended, keeper and worker: systemd has kept its connections")
	return nil
}
