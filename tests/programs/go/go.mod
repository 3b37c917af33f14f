module sidestep.dev/tests/programs

go 1.24
