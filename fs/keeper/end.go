package keeper

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
)

// errGone is the end of it all.
var errGone = errors.New("the kernel has ended the connection")

func (k *Keeper) gone() error {
	return errors.Join(fmt.Errorf("the kernel has ended the connection of %s: somebody unmounted or aborted it", k.hand.Tree.Dir), k.Close())
}

// Leave ends the keeper: everything with it if no container uses the views, else it alone.
func (k *Keeper) Leave() error {
	users, err := k.users()
	if err == nil && users == 0 {
		slog.Info("ending: told to by a signal")
		return k.Close()
	}
	if k.worker == nil {
		k.launch()
	}
	if k.worker == nil {
		return errors.Join(err, errors.New("there is no worker that could go on, so the views of the containers are dead"))
	}
	pid := k.worker.Pid
	slog.Info("the keeper ends; containers use the views, so the worker goes on: \"lensfs serve\" takes over again, \"lensfs stop --force\" ends it",
		"containers", users, "worker", pid)
	return err
}

// Close unmounts, ends the worker and gives the directories free.
func (k *Keeper) Close() error {
	errs := []error{k.hand.Tree.unmount()}
	if k.hand.Views != nil {
		errs = append(errs, k.hand.Views.unmount())
	}
	if k.worker != nil {
		k.worker.end()
		k.worker = nil
	}
	return errors.Join(append(errs, k.release())...)
}

// release gives up what Start has taken, and what it has mounted.
func (k *Keeper) release() error {
	var errs []error
	if _, ok := k.fds[FdTree]; ok {
		errs = append(errs, k.hand.Tree.unmount())
	}
	if _, ok := k.fds[FdViews]; ok && k.hand.Views != nil {
		errs = append(errs, k.hand.Views.unmount(), remove(StateFile(k.cfg.StateDir, k.hand.Views.Dir, "table")))
	}
	k.unkeep()
	k.unlisten()
	delete(k.fds, fdTreeClaim) // closed with the claims
	delete(k.fds, fdViewsClaim)
	k.fds.close()
	for _, c := range k.claims {
		errs = append(errs, c.release())
	}
	return errors.Join(errs...)
}

// Abandon removes what is left of a daemon whose connection the kernel has ended, and whose keeper is no more: its worker, which holds the claims, does it
// before it ends too. Incus kills the process that it has started for one instance, and takes the tree away.
func Abandon(h Handover) error {
	k := Keeper{cfg: Config{StateDir: h.StateDir}, hand: h}
	dirs := []string{h.Tree.Dir}
	errs := []error{h.Tree.unmount()}
	if h.Views != nil {
		dirs = append(dirs, h.Views.Dir)
		errs = append(errs, h.Views.unmount(), remove(StateFile(h.StateDir, h.Views.Dir, "table")))
	}
	errs = append(errs, k.removeSockets(h.StateDir))
	k.conceal()
	for n := len(dirs) - 1; n >= 0; n-- { // last, and that of the tree the very last: from then on others may serve there
		errs = append(errs, remove(claimPath(h.StateDir, dirs[n])))
	}
	os.Remove(h.StateDir) // fails while something of others is in it
	return errors.Join(errs...)
}

// remove removes a file, if it is there.
func remove(path string) error {
	if err := os.Remove(path); !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}
