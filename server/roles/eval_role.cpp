#include "server/roles/eval_role.h"

#include "engine/base/status.h"

namespace tessera {

Status run_eval(const cli::ResolvedOptions& /*resolved*/) {
  return unimplemented("eval is not there yet");
}

}  // namespace tessera
