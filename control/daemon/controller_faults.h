/*
 * Where a test may let the daemon die: SWITCHBACK_TEST_CRASH=NAME:before or NAME:after, NAME a phase of the
 * flip or one of the runner's actions. `before`: when it is about to begin; `after`: it has happened, the
 * runner hasn't heard of it yet. SWITCHBACK_TEST_STRIKE=PATH: at each of these points the daemon connects to
 * that Unix socket, says "NAME:before" or "NAME:after" in a line, and waits for a byte: a test strikes
 * meanwhile. Built in only with the CMake option SWITCHBACK_TEST_FAULTS.
 */
#ifndef SWITCHBACK_CONTROL_DAEMON_CONTROLLER_FAULTS_H
#define SWITCHBACK_CONTROL_DAEMON_CONTROLLER_FAULTS_H

#include "control/flip/runner.h"

#ifdef SWITCHBACK_TEST_FAULTS
void controller_fault_before(const struct flip_request *request);
void controller_fault_after(const struct flip *flip, const struct flip_event *event);
#else
static inline void controller_fault_before(const struct flip_request *request)
{
    (void)request;
}
static inline void controller_fault_after(const struct flip *flip, const struct flip_event *event)
{
    (void)flip;
    (void)event;
}
#endif

#endif
