module spillway/xray-daemon

go 1.24.0

require github.com/aws/aws-xray-daemon v0.0.0-20251105223849-4dce92e8eb72
