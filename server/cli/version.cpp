#include "server/cli/version.h"

#include "engine/base/text.h"

// The macros are set by CMakeLists.txt for this file alone, at configure time.
namespace tessera::cli {

std::string version_number() {
  return TESSERA_VERSION;
}

std::string describe_version(std::string_view ucx_version) {
  return str_cat("tessera   ",
                 TESSERA_VERSION,
                 "\ncommit    ",
                 TESSERA_GIT_COMMIT,
                 "\ncompiler  ",
                 TESSERA_COMPILER,
                 "\nbuild     ",
                 TESSERA_BUILD_TYPE,
                 "\noneDNN    ",
                 TESSERA_DNNL_VERSION,
                 "\nCUDA      ",
                 TESSERA_CUDA_VERSION,
                 "\nUCX       ",
                 ucx_version,
                 "\n");
}

}  // namespace tessera::cli
