#include "server/roles/calibrate_role.h"

#include "engine/base/status.h"

namespace tessera {

Status run_calibrate(const cli::ResolvedOptions& /*resolved*/) {
  return unimplemented("calibrate is not there yet");
}

}  // namespace tessera
