package home

import (
	"errors"
	"io/fs"
	"syscall"
)

// sharingViolation is what Windows says of a file that somebody has opened for
// himself alone (ERROR_SHARING_VIOLATION).
const sharingViolation = syscall.Errno(32)

// tryLock takes the lock, or returns nil while another process has it: a file that
// is open without sharing is one that nobody else can open.
func tryLock(file string) (unlock func(), err error) {
	name, err := syscall.UTF16PtrFromString(file)
	if err != nil {
		return nil, err
	}
	const shareNothing = 0
	h, err := syscall.CreateFile(name, syscall.GENERIC_READ|syscall.GENERIC_WRITE, shareNothing, nil,
		syscall.OPEN_ALWAYS, syscall.FILE_ATTRIBUTE_NORMAL, 0)
	if errors.Is(err, sharingViolation) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return func() { syscall.CloseHandle(h) }, nil
}

// exposed is never true here: permission bits mean nothing on Windows, where what is
// in a person's own folders is theirs by its access control list.
func exposed(fs.FileInfo) bool { return false }
