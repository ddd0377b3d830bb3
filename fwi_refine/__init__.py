"""fwi-refine: refines predicted velocity maps by full-waveform inversion of their records."""
