// The two halves of gpu_check. Each leaves its lines and rows in the report.
#pragma once

#include "report.h"
#include "target.h"

/// What Beholder promises, on this device: right pictures, and an update() that waits for nothing.
void check_promises(const Target& target, Report& report);

/// What it costs. `quick`: too short for numbers that anybody should quote.
void measure(const Target& target, Report& report, bool quick);
