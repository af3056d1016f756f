package keeper

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"
)

// commandLimit is how long a command waits for its answer: an upgrade may have to start a worker on a loaded machine.
const commandLimit = time.Minute

// ask asks the keeper of dir.
func ask(stateDir, dir string, m Message) (Message, error) {
	dir, err := mountDir(dir)
	if err != nil {
		return Message{}, err
	}
	link, err := dial(stateDir, dir)
	if err != nil {
		if os.Geteuid() != 0 {
			return Message{}, errors.New("only root may ask: run it with sudo")
		}
		return Message{}, fmt.Errorf("no lensfs serves %s with its state in %s: give the --views or --tree of \"lensfs serve\" (%w)", dir, stateDir, err)
	}
	defer link.Close()
	answer, _, err := link.ask(m, commandLimit)
	return answer, err
}

// Upgrade has the keeper of dir upgrade itself and its worker to the binary on disk, and gives the new worker.
func Upgrade(stateDir, dir string) (Worker, error) {
	m, err := ask(stateDir, dir, Message{Op: opUpgrade})
	if err != nil || m.Worker == nil {
		return Worker{}, err
	}
	return *m.Worker, nil
}

// Stop ends the daemon that serves dir, with force also while containers use it; a worker that has lost its keeper too.
func Stop(stateDir, dir string, force bool) error {
	full, err := mountDir(dir)
	if err != nil {
		return err
	}
	h, d, w, link, err := askToAdopt(stateDir, full)
	if err != nil { // it has a keeper, or there is none
		_, err = ask(stateDir, dir, Message{Op: opStop, Force: force})
		return err
	}
	k := &Keeper{cfg: Config{StateDir: stateDir}}
	if err := k.takeOver(h, d, w, link); err != nil {
		return err
	}
	if err := k.mayStop(force); err != nil {
		k.worker.link.Close() // it goes on as before
		return err
	}
	slog.Info("ending a worker that had lost its keeper", "pid", w.Pid)
	return k.Close()
}

// ViewOf gives what the daemon that serves dir has for a process. A container that nobody has asked for yet gets its own view by that.
func ViewOf(stateDir, dir string, pid int) (View, error) {
	m, err := ask(stateDir, dir, Message{Op: OpView, Caller: uint32(pid)})
	if err != nil || m.View == nil {
		return View{}, err
	}
	return *m.View, nil
}

// Status gives what keeper and worker of dir say of themselves.
func Status(stateDir, dir string) (json.RawMessage, error) {
	m, err := ask(stateDir, dir, Message{Op: OpStatus})
	return m.Status, err
}
