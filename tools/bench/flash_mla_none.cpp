// For builds without TESSERA_FLASH_MLA.
#include "tools/bench/flash_mla.h"

namespace tessera::bench {

bool has_flash_mla() {
  return false;
}

std::unique_ptr<DecodeBaseline> create_flash_mla(GpuBench& /*bench*/,
                                                 const kernels::MlaDecodeParams& /*params*/) {
  throw DeviceError("FlashMLA: not built in, see TESSERA_FLASH_MLA");
}

}  // namespace tessera::bench
