//go:build linux

package sandbox

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// limit is a setting of the machine that sandboxes need to be higher while they
// run. Whoever comes first notes what it was, whoever goes last puts that back.
type limit struct {
	// file is the kernel's, wanted what it is to hold at least.
	file   string
	wanted int
	// dir gets a file for each sandbox, and one with what the setting was.
	dir string
}

// before is the file with what a setting was.
const before = "before"

// inotify is how many files each user may have watched by: kubelet, containerd and
// the parts of control planes take a dozen each, and with version 2 of cgroups each
// container takes one more. The kernel's default of 128, for all sandboxes of the
// machine together, is reached by the fourth.
func inotify() limit {
	return limit{file: "/proc/sys/fs/inotify/max_user_instances", wanted: 8192, dir: "/run/sublet-inotify"}
}

// raise raises the setting for the sandbox id. Where root may not, all goes on as far
// as it goes.
func (l limit) raise(id string) error {
	unlock, err := l.lock()
	if err != nil {
		return err
	}
	defer unlock()
	is, err := l.read(l.file)
	if err != nil {
		return err
	}
	noted := filepath.Join(l.dir, before)
	if _, err := os.Stat(noted); errors.Is(err, fs.ErrNotExist) {
		if is >= l.wanted {
			return nil
		}
		if err := errors.Join(os.MkdirAll(l.dir, 0o755), l.write(noted, is)); err != nil {
			return fmt.Errorf("note what %s was: %w", l.file, err)
		}
	}
	if is < l.wanted {
		err := l.write(l.file, l.wanted)
		if errors.Is(err, unix.EROFS) || errors.Is(err, unix.EACCES) || errors.Is(err, unix.EPERM) {
			return l.forget()
		}
		if err != nil {
			return fmt.Errorf("raise %s: %w", l.file, err)
		}
	}
	if err := os.WriteFile(l.mark(id), nil, 0o644); err != nil {
		return fmt.Errorf("note who needs %s: %w", l.file, err)
	}
	return nil
}

// lower takes the sandbox id's need away, and with the last one the setting.
func (l limit) lower(id string) error {
	unlock, err := l.lock()
	if err != nil {
		return err
	}
	defer unlock()
	if err := os.Remove(l.mark(id)); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return fmt.Errorf("note who needs %s: %w", l.file, err)
	}
	left, err := os.ReadDir(l.dir)
	if err != nil {
		return fmt.Errorf("look who needs %s: %w", l.file, err)
	}
	if len(left) > 1 {
		return nil
	}
	was, err := l.read(filepath.Join(l.dir, before))
	if err != nil {
		return err
	}
	is, err := l.read(l.file)
	if err != nil {
		return err
	}
	// If it is something else, somebody else has meant it so.
	if is == l.wanted {
		if err := l.write(l.file, was); err != nil {
			return fmt.Errorf("put %s back: %w", l.file, err)
		}
	}
	return l.forget()
}

// lock lets only one at a time read and change the setting.
func (l limit) lock() (unlock func(), _ error) {
	file, err := os.Open(l.file)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(file.Fd()), unix.LOCK_EX); err != nil {
		file.Close()
		return nil, fmt.Errorf("lock %s: %w", l.file, err)
	}
	return func() { file.Close() }, nil
}

func (l limit) mark(id string) string { return filepath.Join(l.dir, "sublet-"+id) }

func (l limit) forget() error {
	if err := os.RemoveAll(l.dir); err != nil {
		return fmt.Errorf("forget what %s was: %w", l.file, err)
	}
	return nil
}

func (l limit) read(file string) (int, error) {
	content, err := os.ReadFile(file)
	if err != nil {
		return 0, err
	}
	value, err := strconv.Atoi(strings.TrimSpace(string(content)))
	if err != nil {
		return 0, fmt.Errorf("read %s: %w", file, err)
	}
	return value, nil
}

func (l limit) write(file string, value int) error {
	return os.WriteFile(file, []byte(strconv.Itoa(value)+"\n"), 0o644)
}
