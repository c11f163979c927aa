//go:build unix

package embedded

import (
	"os"
	"path/filepath"
	"syscall"
)

// lock keeps two servers from writing into one folder, which would ruin it. The
// system drops the lock when the process ends, however it does.
func lock(dir string) (unlock func(), err error) {
	f, err := os.OpenFile(filepath.Join(dir, "embedded.lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		return nil, err
	}
	return func() { f.Close() }, nil
}
