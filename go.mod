module github.com/seed-a18b2dc9/workpool

go 1.25.0

require (
	github.com/stretchr/testify v1.11.1 // indirect
	go.uber.org/goleak v1.3.0 // indirect
)
